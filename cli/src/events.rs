//! What a command prints on standard error of what happens at its node.

use std::collections::VecDeque;

use cepa::identity::{PeerId, Refusal};
use cepa::mux::{GoAwayCode, LimitKind};
use cepa::node::{Event, Events, Hint, ListenerEnd, Node, PeerAddr, Refused, TurnedAway};
#[cfg(feature = "nat")]
use cepa::protocols::direct::DirectEvent;
use cepa::protocols::pairing::PairingEvent;
use cepa::session::ConnectError;
use cepa::session::reserved::{
    COMMAND_PREFIX, FILES_PREFIX, HANG_UP_PREFIX, RELAY_MEMBER, SOCKS_PREFIX,
};
use cepa::tls::TlsError;
use cepa::transports::Endpoint;

use crate::by_mesh::registered_at;
use crate::console::wire;
use crate::exit::{self, Code, Failure, say};
use crate::log::{self, say_of, say_of_session, say_once_a_minute};
use crate::reach::SESSIONS_OPTION;
use crate::say::Line;

/// The next event, and a line about those that were missed before it.
pub(crate) async fn next_event(
    events: &mut Events,
    missed: &mut u64,
) -> Option<(Option<String>, Event)> {
    let event = events.next().await?;
    let all = events.missed();
    let new = all - std::mem::replace(missed, all);
    Some(((new > 0).then(|| log::not_logged(new)), event))
}

/// What a command prints of what happens at its node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// A peer that is refused would be allowed by another `--allow` on the command line.
    pub(crate) by_option: bool,
    /// The ids that were allowed, where only such are let in.
    pub(crate) pins: Vec<PeerId>,
    /// The addresses of this node through relays.
    pub(crate) reachable: Vec<PeerAddr>,
    /// There is one session, and the command ends with it: what it says is read at the other end of that, by who has started it there.
    pub(crate) alone: bool,
}

impl Report {
    /// Prints what happens at a node, until it is gone.
    pub(crate) fn start(self, node: &Node) {
        let mut events = node.events();
        tokio::spawn(async move {
            let (mut missed, mut asked) = (0, Asked::default());
            while let Some((lost, event)) = next_event(&mut events, &mut missed).await {
                lost.iter().for_each(say);
                match asked.once(&event) {
                    Notice::AsItIs => self.print(&event),
                    Notice::As(other) => self.print(&other),
                    Notice::Already => {}
                }
            }
        });
    }

    fn print(&self, event: &Event) {
        match event {
            // The command prints these itself, with who listens.
            Event::Listening { .. } => {}
            Event::SessionUp { .. } if self.alone => {}
            Event::SessionDown { end, .. } if self.alone && end.is_clean() => {}
            // As often as connections come and go.
            Event::SessionPaused { peer, .. }
            | Event::SessionResumed { peer, .. }
            | Event::SessionMigrated { peer, .. } => say_of_session(peer, event),
            // Its one session is all there will be, and the command ends with it.
            Event::ListenerEnded { at } if at.has_one_stream() => {}
            Event::TurnedAway {
                at,
                source,
                from,
                reason,
            } => {
                // The one session of `serve stdio:` is the command's own end.
                if at.as_ref().is_some_and(Endpoint::has_one_stream) {
                    return;
                }
                let source = log::source(*source, from);
                match reason {
                    TurnedAway::Connect(error) => {
                        let mut line = Line::from(self.refused(error, from).message);
                        if let ConnectError::NotTakenUp { peer, .. } = error {
                            line = line.with("peer", peer);
                        }
                        say_of(source, line.with("address", from));
                    }
                    _ => say_of(source, line_of(event)),
                }
            }
            Event::SessionDown { peer, end, .. } if end.is_clean() => {
                say_of_session(peer, line_of(event));
            }
            Event::SessionUp { peer, path } => {
                say_of_session(peer, line_of(event));
                if !path.dialled && !self.pins.is_empty() && !self.pins.contains(peer) {
                    say_of(
                        peer,
                        format_args!(
                            "warning: an allowed peer has replaced its key; its new id is {peer}, allow that one from now on"
                        ),
                    );
                }
            }
            #[cfg(feature = "nat")]
            // Worth nothing to who has the session; `-v` shows it.
            _ if matches!(event.protocol(), Some(DirectEvent::NotDirect { .. })) => {}
            // The command tells it, with the name.
            _ if matches!(event.protocol(), Some(PairingEvent::Joined { .. })) => {}
            _ => {
                match event.peer() {
                    // Whoever asks for it may ask often.
                    Some(peer) if matches!(event, Event::Refused { .. }) => {
                        say_once_a_minute(peer, event, line_of(event));
                    }
                    Some(peer) => say_of(peer, line_of(event)),
                    None => say(line_of(event)),
                }
                if let Some(relay) = registered_at(event) {
                    for address in self.reachable.iter().filter(|it| leads_through(it, &relay)) {
                        say(format_args!("reachable at {address}"));
                    }
                }
            }
        }
    }

    /// A handshake that failed, with what the operator can do about it.
    pub(crate) fn refused(&self, error: &ConnectError, from: &str) -> Failure {
        if let Some(TlsError::Refused(
            Refusal::Unknown { presented }
            | Refusal::WrongPeer { presented, .. }
            | Refusal::Changed {
                presented,
                note: None,
                ..
            },
        )) = exit::tls(error)
        {
            let allow = if self.by_option {
                let run = exit::command_with("--allow", &presented.to_string());
                format!("; to allow it, run: {run}")
            } else {
                "; to allow it, add its id to `allow` in the configuration file".to_owned()
            };
            return Failure::new(
                Code::UnknownPeer,
                format!("refused {from}: peer {presented} is not allowed{allow}"),
            );
        }
        // We are who was dialled: what helps who dials would be false advice here.
        if exit::tls(error).is_some_and(TlsError::is_identity_refused) {
            return Failure::new(
                Code::Refused,
                format!(
                    "{from}: the peer refused this server's identity: it expects another id, or its user has not accepted this one yet; `cepa id show` here prints the right id"
                ),
            );
        }
        let failure = Failure::from(error.clone());
        let raised = match error {
            ConnectError::NotAdmitted(why)
                if why.code == GoAwayCode::Limit(LimitKind::PeerSessions) =>
            {
                SESSIONS_OPTION
            }
            _ => "",
        };
        let message = format!("{from}: {}{raised}", failure.message);
        Failure::new(failure.code, message)
    }

    /// Why a listener has ended, as the end of the command.
    pub(crate) fn ended(&self, end: ListenerEnd) -> Failure {
        match end {
            ListenerEnd::Transport(error) => error.into(),
            ListenerEnd::Session(end) => end.into(),
            ListenerEnd::TurnedAway {
                from,
                reason: TurnedAway::Connect(error),
            } => self.refused(&error, &from),
            end => Failure::of(Code::Other, &end),
        }
    }
}

/// The line about an event, with what it is about.
fn line_of(event: &Event) -> Line {
    let line = Line::from(event);
    match event {
        Event::SessionUp { path, .. } | Event::SessionDown { path, .. } => {
            line.with("address", &path.label)
        }
        Event::TurnedAway { from, .. } => line.with("address", from),
        Event::Refused { service, .. }
        | Event::HandlerFailed { service, .. }
        | Event::HandlerPanicked { service, .. } => line.with("service", service),
        Event::ListenerFailed { at, .. }
        | Event::ListenerBack { at }
        | Event::ListenerEnded { at }
        | Event::Remark { at, .. }
        | Event::ChildStderr { at, .. } => line.with("address", at),
        _ => line,
    }
}

/// Services that were asked for in a form of the tool's and are asked for once more by their name alone: of a mistyped name
/// there is one line to read, with the name that was typed.
#[derive(Debug, Default)]
struct Asked(VecDeque<(PeerId, String)>);

/// What is said of an event.
enum Notice {
    AsItIs,
    As(Box<Event>),
    Already,
}

impl Asked {
    /// Names that are remembered. More than are asked for at once, and few enough to be looked through.
    const MOST: usize = 64;

    fn once(&mut self, event: &Event) -> Notice {
        let Event::Refused {
            peer,
            service,
            reason: reason @ Refused::NotOpen,
        } = event
        else {
            return Notice::AsItIs;
        };
        if service == RELAY_MEMBER {
            let why = format!(
                "it asks as a relay of this fleet, and is not in this one's --fleet-peer: give {peer} there if it is one"
            );
            return Notice::As(Box::new(Event::Refused {
                peer: *peer,
                service: service.clone(),
                reason: Refused::Other(why),
            }));
        }
        let mut of_kept = [wire::ATTACH_PREFIX, HANG_UP_PREFIX].into_iter();
        let kept = of_kept.find_map(|form| service.strip_prefix(form)?.split_once('.'));
        let plain = kept
            .map(|(_, plain)| plain)
            .or_else(|| service.strip_prefix(SOCKS_PREFIX))
            .or_else(|| service.strip_prefix(FILES_PREFIX))
            .or_else(|| service.strip_prefix(COMMAND_PREFIX));
        if let Some(plain) = plain {
            // It is asked for in no other form.
            return Notice::As(Box::new(Event::Refused {
                peer: *peer,
                service: plain.to_owned(),
                reason: reason.clone(),
            }));
        }
        let forms = [wire::EXEC_PREFIX, wire::PREFIX];
        let Some(plain) = forms.iter().find_map(|form| service.strip_prefix(form)) else {
            let here = |(p, s): &(PeerId, String)| p == peer && s == service;
            return match self.0.iter().position(here) {
                Some(at) => {
                    self.0.remove(at);
                    Notice::Already
                }
                None => Notice::AsItIs,
            };
        };
        if plain.is_empty() {
            // The only service, which is had by no name, and so in no form.
            return Notice::Already;
        }
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((*peer, plain.to_owned()));
        Notice::As(Box::new(Event::Refused {
            peer: *peer,
            service: plain.to_owned(),
            reason: reason.clone(),
        }))
    }
}

fn leads_through(address: &PeerAddr, by: &PeerId) -> bool {
    let mut hints = address.hints().iter();
    hints.any(|hint| matches!(hint, Hint::Relay { relay, .. } if relay == by))
}
