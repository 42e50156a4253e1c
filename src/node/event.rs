//! What happens at a node, for logs and metrics.

use std::fmt;

use cepa_transports::Endpoint;
use cepa_transports::text::clean;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::gate::Source;
use crate::identity::PeerId;

use super::call::Path;

/// Something that happened at a node. Its text is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A listener is up; the address has the real port.
    Listening(Endpoint),
    /// A listener is gone; the text says why, and is empty where it was a line that has ended. A serial
    /// line that was unplugged is waited for: [`Listening`](Self::Listening) comes again with its first byte.
    ListenerGone(Endpoint, String),
    /// What a listener's device does not do of what its address asks for.
    Remark(String),
    /// A session with a peer is up.
    Up(PeerId, Path),
    /// A session with a peer is over; the text says how.
    Down(PeerId, Path, String),
    /// A peer that was let in for its key showed a certificate that had run out by then: tell its owner.
    CertificateExpired(PeerId),
    /// Somebody was turned away: the source, which is for counting; from where, which is for people; and why.
    TurnedAway(Source, String, String),
    /// A peer asked for a service that it does not get: which, and why.
    Refused(PeerId, String, String),
    /// A peer got a service because somebody introduced it: which, and who did, the first one first.
    Introduced(PeerId, String, Vec<PeerId>),
    /// A peer took an introduction to a service back.
    Revoked(PeerId, String),
    /// A sealed request was let in: from whom, by whom it was brought, and for which service.
    Asked(PeerId, PeerId, String),
    /// A peer gave another one a reference through a membrane: who, whom, and to which service of whom.
    Wrapped(PeerId, PeerId, String),
    /// Registered at a relay.
    Registered(PeerId),
    /// No longer registered at a relay; tried again by itself.
    Unregistered(PeerId, String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What peers have said is in it.
        f.write_str(&clean(&Line(self).to_string(), usize::MAX))
    }
}

/// The text of an event, as it comes.
struct Line<'a>(&'a Event);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Listening(at) => write!(f, "listening on {at}"),
            Event::ListenerGone(at, why) if why.is_empty() => write!(f, "{at} has ended"),
            Event::ListenerGone(at, why) => write!(f, "no longer listening on {at}: {why}"),
            Event::Remark(remark) => f.write_str(remark),
            Event::Up(peer, path) => write!(f, "session with {peer} {}", path.phrase()),
            Event::Down(peer, path, how) => {
                write!(f, "session with {peer} {} ended: {how}", path.phrase())
            }
            Event::CertificateExpired(peer) => write!(
                f,
                "warning: the certificate of peer {peer} has run out; it is trusted for its key, but its owner should renew it (with the same key, so that its id stays)"
            ),
            Event::TurnedAway(_, from, why) => write!(f, "turned {from} away: {why}"),
            Event::Refused(peer, service, why) => {
                write!(f, "refused {peer} the service {service:?}: {why}")
            }
            Event::Introduced(peer, service, by) => {
                let by: Vec<String> = by.iter().rev().map(PeerId::to_string).collect();
                let by = by.join(", who was introduced by ");
                write!(f, "{peer} gets the service {service:?}, introduced by {by}")
            }
            Event::Revoked(peer, service) => {
                write!(
                    f,
                    "{peer} took an introduction to the service {service:?} back"
                )
            }
            Event::Asked(from, by, service) if from == by => {
                write!(f, "{from} asks the service {service:?}, sealed")
            }
            Event::Asked(from, by, service) => {
                write!(
                    f,
                    "{from} asks the service {service:?}, sealed and brought by {by}"
                )
            }
            Event::Wrapped(from, to, what) => {
                write!(
                    f,
                    "{from} gave {to} a reference to {what}, through a membrane"
                )
            }
            Event::Registered(relay) => write!(f, "registered at relay {relay}"),
            Event::Unregistered(relay, why) => {
                write!(f, "not registered at relay {relay}: {why}; trying again")
            }
        }
    }
}

/// The events of a node from the moment on at which it was made.
#[derive(Debug)]
pub struct Events {
    queue: broadcast::Receiver<Event>,
    missed: u64,
}

impl Events {
    pub(super) fn new(queue: broadcast::Receiver<Event>) -> Self {
        Self { queue, missed: 0 }
    }

    /// The next one; `None` once the node is gone. A slow watcher misses the oldest ones.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.queue.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many were missed so far.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use cepa_transports::text::{HOSTILE, is_printable};

    use super::*;

    #[test]
    fn a_line_about_an_event_does_nothing_to_a_terminal() {
        let peer = PeerId::from_bytes([1; 32]);
        for (name, c) in HOSTILE.iter().filter(|(_, c)| *c != '\0') {
            let text = format!("a{c}b");
            let at: Endpoint = format!("unix:/{text}").parse().unwrap();
            let path = Path {
                via: vec![],
                dialled: false,
                label: text.clone(),
            };
            for event in [
                Event::Listening(at.clone()),
                Event::ListenerGone(at, text.clone()),
                Event::Remark(text.clone()),
                Event::Up(peer, path.clone()),
                Event::Down(peer, path, text.clone()),
                Event::TurnedAway(Source::HERE, text.clone(), text.clone()),
                Event::Refused(peer, text.clone(), text.clone()),
                Event::Introduced(peer, text.clone(), vec![peer]),
                Event::Revoked(peer, text.clone()),
                Event::Asked(peer, PeerId::from_bytes([2; 32]), text.clone()),
                Event::Wrapped(peer, peer, text.clone()),
                Event::Unregistered(peer, text.clone()),
            ] {
                let line = event.to_string();
                assert!(line.chars().all(is_printable), "{name}: {line:?}");
            }
        }
    }
}
