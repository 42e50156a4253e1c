//! How the end of a service reaches who opened it, and what it becomes there. Every case stands in `told_table.txt`.
//!
//! ```text
//!   service ends --[says]--> a message | an end | a reset --[How]--> [becomes]--> exit status | opened again
//! ```
//!
//! A service of the tool is opened in the form that tells how it ended (`cepa.exec.NAME`, `cepa.console.NAME`; docs/PROTOCOL.md). A peer
//! that refuses the form is asked for the service by its name alone; the failure of a command is a reset then.

use std::sync::{Arc, Mutex, PoisonError};

use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::{OpenError, ServiceName, Session};

use crate::console::framed::Framed;
use crate::console::wire::{Message, Status};
use crate::exit::{Code, Failure};

/// What a service's peer reads behind its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// A message with how it ended, then an end.
    Status(Status),
    /// An end.
    End,
    /// A reset.
    Reset,
}

/// What is said of the end of a service's output: of a command with its status, and of anything else without. `framed`: the peer takes messages.
pub(crate) fn says(command: Option<Status>, framed: bool) -> Says {
    match (command, framed) {
        (Some(status), true) => Says::Status(status),
        (None, true) => Says::Status(Status::Exited(0)),
        (None | Some(Status::Exited(0)), false) => Says::End,
        (Some(_), false) => Says::Reset,
    }
}

/// How a service came to its end, for who opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It said so, whatever came behind that.
    Said(Status),
    /// Its output ended, and it has no other way to say so.
    Ended,
    /// Its output ended, and it did not say how, though that was agreed.
    Unsaid,
    /// The other end dropped its substream; the session goes on.
    Reset,
    /// Its session is over, cut or in order: nothing is known of the service.
    Lost,
}

/// What that becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    Success,
    /// The status of a command, as it is.
    Status(Status),
    /// A failure of cepa, or of the service as cepa sees it.
    Failure(Code),
    /// The service is opened again in a session of its own.
    Again,
}

/// What an end becomes; `again`: who opened the service would open it again in another session.
pub(crate) fn becomes(how: &How, again: bool) -> Becomes {
    match how {
        How::Said(Status::Exited(0)) | How::Ended => Becomes::Success,
        How::Said(status) => Becomes::Status(status.clone()),
        How::Unsaid | How::Reset => Becomes::Failure(Code::Other),
        How::Lost if again => Becomes::Again,
        How::Lost => Becomes::Failure(Code::Lost),
    }
}

/// How a command's end is a failure of this process.
pub(crate) fn ended(status: Status) -> Result<(), Failure> {
    match status {
        Status::Exited(0) => Ok(()),
        Status::Exited(status) => Err(Failure::of_command(status)),
        Status::Killed(signal) => {
            crate::exit::say(&status);
            Err(Failure::of_command(128_u8.saturating_add(signal)))
        }
        Status::Failed(why) => Err(Failure::new(Code::Other, why)),
    }
}

/// How a service said that it ended, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<Status>>>);

impl Ending {
    pub(crate) fn is_known(&self) -> bool {
        self.lock().is_some()
    }

    pub(crate) fn take(&self) -> Option<Status> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service, in the form that the peer gave it.
pub(crate) enum Opened {
    Framed(Framed<Onion<Substream>>),
    Plain(Onion<Substream>),
}

/// Opens a service in the form that `prefix` names, or by its name alone where the peer has no such form. How it ends goes to `ending`, lines
/// of its standard error to `tell`.
pub(crate) async fn open(
    session: &Session,
    prefix: &str,
    service: &str,
    ending: &Ending,
    tell: fn(&str),
) -> Result<Opened, OpenError> {
    let name = format!("{prefix}{service}");
    // With the prefix the name may be too long.
    if ServiceName::check(&name).is_ok() {
        match session.open(&name).await {
            Ok(far) => {
                let ending = ending.clone();
                let hear = move |message| match message {
                    Message::Ended(status) => *ending.lock() = Some(status),
                    Message::Stderr(line) => tell(&line),
                    Message::Terminal(_) | Message::Break | Message::OutputEnded => {}
                };
                return Ok(Opened::Framed(Framed::new(far, Box::new(hear))));
            }
            Err(OpenError::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    session.open(service).await.map(Opened::Plain)
}
