//! What a service may be called, and which names are the protocols' own.
//!
//! Names are compared byte for byte, and people read and type them. So no name holds what can't be seen, or
//! shuffles what stands around it: two names that look the same would be two services, and a message about one
//! could be made to read like one about another. Beyond that a name is any text of up to 255 bytes of UTF-8, which is
//! what one length byte on the wire can say.
//!
//! Names that begin with `cepa.` belong to cepa itself. All that are in use stand in [`reserved`], so that no two
//! protocols take the same one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cepa_transports::text::is_printable;

/// The name of a service, checked; see the [module](reserved) for those that are taken. Cheap to clone.
///
/// There is no empty one: an empty name in a request stands for "your default service".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// Why a text can't be the name of a service. Each text is one line and says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceNameError {
    /// There is nothing.
    #[error("the service's name is missing: give it one")]
    Empty,
    /// More than one length byte on the wire can say.
    #[error(
        "a service's name has at most {} bytes of UTF-8, this has {found}: shorten it",
        ServiceName::MAX_LEN
    )]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// It belongs to a protocol.
    #[error("names of services that begin with \"cepa.\" are cepa's own: choose another one")]
    Reserved,
    /// A line end, an escape, or another control character.
    #[error("a service's name has no control characters, this has U+{:04X}: leave it out", u32::from(*found))]
    Control {
        /// The first of them.
        found: char,
    },
    /// A character that is not seen, or that changes the order in which others are shown.
    #[error(
        "a service's name has no invisible characters and none that change the direction of text, this has U+{:04X}: leave it out",
        u32::from(*found)
    )]
    Invisible {
        /// The first of them.
        found: char,
    },
}

impl ServiceName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it; the first fault, from its front.
    pub fn new(name: &str) -> Result<Self, ServiceNameError> {
        Self::check(name).map(|()| Self(name.into()))
    }

    /// As [`new`](Self::new), for the name of an application's own service.
    ///
    /// # Errors
    /// As for `new`, and [`ServiceNameError::Reserved`].
    pub fn unreserved(name: &str) -> Result<Self, ServiceNameError> {
        if reserved::is_reserved(name) {
            return Err(ServiceNameError::Reserved);
        }
        Self::new(name)
    }

    /// As [`new`](Self::new), without keeping the name.
    ///
    /// # Errors
    /// As for `new`.
    pub fn check(name: &str) -> Result<(), ServiceNameError> {
        if name.is_empty() {
            return Err(ServiceNameError::Empty);
        }
        if name.len() > Self::MAX_LEN {
            return Err(ServiceNameError::TooLong { found: name.len() });
        }
        for found in name.chars() {
            if found.is_control() {
                return Err(ServiceNameError::Control { found });
            }
            if !is_printable(found) {
                return Err(ServiceNameError::Invisible { found });
            }
        }
        Ok(())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name belongs to cepa's own protocols ([`reserved`]), so that no application may offer a service
    /// by it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        reserved::is_reserved(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(name: &str) -> Result<Self, ServiceNameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ServiceName {
    type Error = ServiceNameError;

    fn try_from(name: &str) -> Result<Self, ServiceNameError> {
        Self::new(name)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// For maps whose key is a name: what is looked up is what came over the wire.
impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The names that are cepa's own, each for one protocol; docs/PROTOCOL.md has what is said behind them.
pub mod reserved {
    /// What they all begin with. No application may offer a service whose name does, in use or not.
    pub const PREFIX: &str = "cepa.";

    /// Pairing by an invitation: opened by the joiner at the inviter.
    pub const PAIR: &str = "cepa.pair";
    /// A ticket: shown by whoever has it to the peer that made it.
    pub const TICKET: &str = "cepa.ticket";
    /// Of the session itself: the opener will be silent for a while.
    pub const PAUSE: &str = "cepa.pause";
    /// Which services the opener may open.
    pub const DIRECTORY: &str = "cepa.directory";
    /// What the acceptor sees of the session with the opener.
    pub const STATUS: &str = "cepa.status";
    /// At a program of this machine that lends its session: who its peer is.
    pub const LENT_PEER: &str = "cepa.lent.peer";
    /// At such a one: how long that peer takes to answer.
    pub const LENT_PING: &str = "cepa.lent.ping";
    /// At a relay: be registered there.
    pub const RELAY_REGISTER: &str = "cepa.relay.register";
    /// At a relay: a circuit to a registered peer.
    pub const RELAY_DIAL: &str = "cepa.relay.dial";
    /// A short code at a relay, for what its opener has to give ([`code`](crate::protocols::code)).
    pub const CODE_OFFER: &str = "cepa.code.offer";
    /// What somebody offers there by a short code.
    pub const CODE_USE: &str = "cepa.code.use";
    /// At a registered peer, opened by its relay: a circuit from somebody.
    pub const RELAY_CIRCUIT: &str = "cepa.relay.circuit";
    /// At a relay, opened by another one of its fleet: a circuit for somebody to a peer that is registered there.
    pub const RELAY_MEMBER: &str = "cepa.relay.member";
    /// The same: how many registrations a peer has there.
    pub const RELAY_HOLDS: &str = "cepa.relay.holds";
    /// At a relay: where it sees the opener.
    pub const RELAY_SEEN: &str = "cepa.relay.seen";
    /// At a peer that is reached through a relay: let us try for a direct path.
    pub const NAT: &str = "cepa.nat";
    /// At the owner of a service: show an introduction, or take one back.
    pub const INTRODUCTION: &str = "cepa.introduction";
    /// At a carrier of sealed messages: take one to somebody, or fetch somebody's key.
    pub const SEALED_CARRY: &str = "cepa.sealed.carry";
    /// At the recipient of sealed messages: here is one, or give me your key.
    pub const SEALED_DELIVER: &str = "cepa.sealed.deliver";
    /// Before the random name of a service that stands for a reference which passed a membrane.
    pub const MEMBRANE_PREFIX: &str = "cepa.membrane.";
    /// Before the name of a service: that service with a terminal.
    pub const CONSOLE_PREFIX: &str = "cepa.console.";
    /// Before the name of a console that is kept, a dot, and the name of a service: that service with a terminal which outlives who
    /// opened it.
    pub const ATTACH_PREFIX: &str = "cepa.attach.";
    /// The consoles that are kept for who asks.
    pub const KEPT: &str = "cepa.kept";
    /// Before the name of such a console, a dot, and the name of its service: its command is hung up.
    pub const HANG_UP_PREFIX: &str = "cepa.hangup.";
    /// Before the name of such a console (or nothing), a dot, and the name of a service: what that says to whoever has it open.
    pub const WATCH_PREFIX: &str = "cepa.watch.";
    /// Before the name of a service: that service with its standard error and how it ended.
    pub const EXEC_PREFIX: &str = "cepa.exec.";
    /// Before the name of a service: a connection to the destination that is named in the substream, as that service allows.
    pub const SOCKS_PREFIX: &str = "cepa.socks.";
    /// Listen somewhere for the opener, and tell it of each connection.
    pub const REMOTE_LISTEN: &str = "cepa.remote.listen";
    /// Before the number of such a connection: that connection.
    pub const REMOTE_ACCEPT_PREFIX: &str = "cepa.remote.accept.";
    /// Before the name of a service: files below its folder, sent or fetched.
    pub const FILES_PREFIX: &str = "cepa.files.";
    /// Before the name of a service: a program that it allows, named with its arguments in the substream, with its standard error and
    /// how it ended.
    pub const COMMAND_PREFIX: &str = "cepa.command.";

    /// Whether a name is one of them, or may become one.
    #[must_use]
    pub fn is_reserved(name: &str) -> bool {
        name.starts_with(PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn a_name_is_any_text_that_people_can_see_of_up_to_255_bytes() {
        let longest = "x".repeat(255);
        let umlauts = "ü".repeat(127);
        for good in [
            "x",
            "db",
            "größer",
            "two words",
            "日本",
            "ab/c=d",
            &longest,
            &umlauts,
        ] {
            let name: ServiceName = good.parse().unwrap();
            assert_eq!(name.as_str(), good);
            assert_eq!(name.to_string(), good);
            assert_eq!(ServiceName::check(good), Ok(()));
        }
        let too_long = "x".repeat(256);
        for (bad, error) in [
            ("", ServiceNameError::Empty),
            (&too_long, ServiceNameError::TooLong { found: 256 }),
            (&"ü".repeat(128), ServiceNameError::TooLong { found: 256 }),
            ("a\nb", ServiceNameError::Control { found: '\n' }),
            ("\u{7f}", ServiceNameError::Control { found: '\u{7f}' }),
            ("\u{85}", ServiceNameError::Control { found: '\u{85}' }),
        ] {
            assert_eq!(ServiceName::new(bad), Err(error), "{bad:?}");
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
    }

    #[test]
    fn what_is_not_seen_or_shuffles_text_is_in_no_name() {
        // One at each end of each range of the property, and what stands around them.
        let bad = [
            0xad, 0x34f, 0x61c, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x180b, 0x180f, 0x200b, 0x200d,
            0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2060, 0x2066, 0x2069, 0x206f, 0x3164,
            0xfe00, 0xfe0f, 0xfeff, 0xffa0, 0xfff0, 0xfffb, 0x1_bca0, 0x1_bca3, 0x1_d173, 0x1_d17a,
            0xe_0000, 0xe_0001, 0xe_007f, 0xe_0100, 0xe_01ef, 0xe_0fff,
        ];
        for found in bad.map(|code| char::from_u32(code).unwrap()) {
            let error = ServiceName::new(&format!("d{found}b")).unwrap_err();
            assert_eq!(error, ServiceNameError::Invisible { found });
            assert!(!error.to_string().contains(found), "{error}");
        }
        let good = [
            0x20, 0xac, 0xae, 0x34e, 0x350, 0x61b, 0x115e, 0x1161, 0x17b6, 0x1810, 0x2010, 0x202f,
            0x3163, 0xfdff, 0xfe10, 0xff9f, 0xfffd, 0x1_bc9f, 0x1_d172, 0x1_d17b, 0xd_fffd,
            0xe_1000,
        ];
        for fine in good.map(|code| char::from_u32(code).unwrap()) {
            assert_eq!(ServiceName::check(&format!("d{fine}b")), Ok(()), "{fine:?}");
        }
    }

    #[test]
    fn the_protocols_names_are_reserved_and_each_is_one() {
        let taken = [
            reserved::PAIR,
            reserved::TICKET,
            reserved::PAUSE,
            reserved::DIRECTORY,
            reserved::STATUS,
            reserved::LENT_PEER,
            reserved::LENT_PING,
            reserved::RELAY_REGISTER,
            reserved::RELAY_DIAL,
            reserved::CODE_OFFER,
            reserved::CODE_USE,
            reserved::RELAY_CIRCUIT,
            reserved::RELAY_MEMBER,
            reserved::RELAY_HOLDS,
            reserved::RELAY_SEEN,
            reserved::NAT,
            reserved::INTRODUCTION,
            reserved::SEALED_CARRY,
            reserved::SEALED_DELIVER,
            reserved::MEMBRANE_PREFIX,
            reserved::CONSOLE_PREFIX,
            reserved::ATTACH_PREFIX,
            reserved::KEPT,
            reserved::HANG_UP_PREFIX,
            reserved::WATCH_PREFIX,
            reserved::EXEC_PREFIX,
            reserved::SOCKS_PREFIX,
            reserved::REMOTE_LISTEN,
            reserved::REMOTE_ACCEPT_PREFIX,
            reserved::FILES_PREFIX,
            reserved::COMMAND_PREFIX,
        ];
        for (at, name) in taken.iter().enumerate() {
            assert!(ServiceName::new(name).unwrap().is_reserved(), "{name}");
            // None is the beginning of another one either.
            let mut others = taken.iter().enumerate().filter(|(other, _)| *other != at);
            assert!(others.all(|(_, other)| !other.starts_with(name)), "{name}");
        }
        for (name, reserved) in [
            ("cepa.anything", true),
            ("cepa.", true),
            ("cepa", false),
            ("Cepa.pair", false),
            ("a.cepa.pair", false),
        ] {
            assert_eq!(ServiceName::new(name).unwrap().is_reserved(), reserved);
        }
    }

    #[test]
    fn names_are_looked_up_by_what_came_over_the_wire() {
        let name = ServiceName::new("db").unwrap();
        let hashed = HashMap::from([(name.clone(), 1)]);
        let sorted = BTreeMap::from([(name, 1)]);
        assert_eq!((hashed.get("db"), sorted.get("db")), (Some(&1), Some(&1)));
        assert_eq!((hashed.get("dB"), sorted.get("")), (None, None));
    }
}
