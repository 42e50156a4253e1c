//! How the end of a service reaches who opened it, and what it becomes there. Every case stands in `service_end_table.txt`.
//!
//! ```text
//!   service ends --[says]--> a message | an end | a reset --[How]--> [becomes]--> exit status | opened again
//! ```
//!
//! A service of the tool is opened in the form that tells how it ended (`cepa.exec.NAME`, `cepa.console.NAME`; docs/PROTOCOL.md). A peer
//! that refuses the form, and not only for now, is asked for the service by its name alone; the failure of a command is a reset then.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::reserved::WATCH_PREFIX;
use cepa::session::{OpenError, ServiceName, Session};
use tokio::sync::Notify;

use crate::console::framed::Framed;
use crate::console::wire::{self, Found, Message, Status};
use crate::exit::{Code, Failure, NOT_NOW};
use crate::keep::in_words;
use crate::say::Line;
use crate::stderr;

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
    Reconnect,
}

/// What an end becomes; `again`: who opened the service would open it again in another session.
pub(crate) fn becomes(how: &How, again: bool) -> Becomes {
    match how {
        How::Said(Status::Exited(0)) | How::Ended => Becomes::Success,
        How::Said(status) => Becomes::Status(status.clone()),
        How::Reset => Becomes::Failure(Code::Other),
        How::Lost if again => Becomes::Reconnect,
        // A cut, though the session stands: docs/PROTOCOL.md.
        How::Unsaid | How::Lost => Becomes::Failure(Code::Lost),
    }
}

/// A service on a console that broke off: it has a message for that. Any other form has a reset.
pub(crate) fn broke_off() -> Status {
    Status::Failed("the service was interrupted".to_owned())
}

/// How a command's end is a failure of this process.
pub(crate) fn ended(status: Status) -> Result<(), Failure> {
    match status {
        Status::Exited(0) => Ok(()),
        Status::Exited(status) => Err(Failure::of_command(status)),
        Status::Killed(signal) => {
            // 255 is for `--error-status`: no system has a signal of such a number, but a peer may say so.
            let code = 128_u8.saturating_add(signal).min(254);
            crate::exit::say(Line::from(&status).error(code));
            Err(Failure::of_command(code))
        }
        Status::Failed(why) if why.is_empty() => {
            let why = "the service failed and did not say why; see the server's log";
            Err(Failure::new(Code::Other, why))
        }
        Status::Failed(why) => Err(Failure::new(Code::Other, why)),
        taken @ Status::TakenOver => Err(Failure::new(
            Code::TakenOver,
            format!("{taken}; this one has ended"),
        )),
    }
}

/// How a service said that it ended, once it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    status: Option<Status>,
    /// How long the server keeps the console while nobody is attached.
    keep: Option<Duration>,
    /// Told once the service is open, where the server says so.
    opened: Arc<Notify>,
}

impl Ending {
    pub(crate) fn take(&self) -> Option<Status> {
        self.lock().status.take()
    }

    /// Waits until the service is said to be open, which an older server does not do.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn opened(&self) {
        let opened = Arc::clone(&self.lock().opened);
        opened.notified().await;
    }

    /// Whether it has said that it failed.
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.lock().status, Some(Status::Failed(_)))
    }

    /// How long the server keeps the console while nobody is attached, where it has said so.
    pub(crate) fn keep(&self) -> Option<Duration> {
        self.lock().keep
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service, in the form that the peer gave it.
pub(crate) enum Opened {
    Framed(Box<Framed<Onion<Substream>>>),
    Plain(Box<Onion<Substream>>),
}

/// Opens a service in the form that `prefix` names, or by its name alone where the peer has no such form. How it ends goes to `ending`, lines
/// of its standard error to `notify`.
pub(crate) async fn open(
    session: &Session,
    prefix: &str,
    service: &str,
    ending: &Ending,
    notify: impl Fn(&str) + Send + 'static,
) -> Result<Opened, OpenError> {
    let name = format!("{prefix}{service}");
    let at_terminal = prefix == wire::EXEC_PREFIX && io::stdin().is_terminal();
    // With the prefix the name may be too long.
    if ServiceName::check(&name).is_ok() {
        match session.open(&name).await {
            Ok(far) => {
                return Ok(Opened::Framed(Box::new(framed(
                    far,
                    ending,
                    notify,
                    at_terminal,
                ))));
            }
            // By its name alone it might be had a moment later, and its status would be lost.
            Err(OpenError::Refused { reason, .. }) if reason.starts_with(NOT_NOW) => {
                let service = service.to_owned();
                return Err(OpenError::Refused { service, reason });
            }
            Err(OpenError::Refused { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    session
        .open(service)
        .await
        .map(|far| Opened::Plain(Box::new(far)))
}

/// Opens a service on a console that is kept under this name. No other form does.
pub(crate) async fn attach(
    session: &Session,
    kept: &str,
    service: &str,
    ending: &Ending,
    notify: impl Fn(&str) + Send + 'static,
) -> Result<Opened, OpenError> {
    let name = format!("{}{kept}.{service}", wire::ATTACH_PREFIX);
    let opened = session.open(&name).await;
    let far = opened.map_err(|e| as_typed(e, service))?;
    let far = framed(far, ending, notify, false);
    Ok(Opened::Framed(Box::new(far.in_order().of_kept())))
}

/// A refusal by the name that was typed, and not by the form of it that was asked for.
pub(crate) fn as_typed(error: OpenError, typed: &str) -> OpenError {
    match error {
        OpenError::Refused { reason, .. } => OpenError::Refused {
            service: typed.to_owned(),
            reason,
        },
        e => e,
    }
}

/// Watches what somebody else has opened: a console that is kept under this name, or where that is empty whatever there is. No other
/// form does.
pub(crate) async fn watch(
    session: &Session,
    kept: &str,
    service: &str,
    ending: &Ending,
    notify: impl Fn(&str) + Send + 'static,
) -> Result<Opened, OpenError> {
    let name = format!("{WATCH_PREFIX}{kept}.{service}");
    let opened = session.open(&name).await;
    let far = opened.map_err(|e| as_typed(e, service))?;
    let far = framed(far, ending, notify, false);
    Ok(Opened::Framed(Box::new(far.in_order())))
}

/// A program that runs for us, as `cepa exec` has it.
pub(crate) fn of_program(
    far: Onion<Substream>,
    ending: &Ending,
    notify: impl Fn(&str) + Send + 'static,
) -> Framed<Onion<Substream>> {
    framed(far, ending, notify, false)
}

fn framed(
    far: Onion<Substream>,
    ending: &Ending,
    notify: impl Fn(&str) + Send + 'static,
    at_terminal: bool,
) -> Framed<Onion<Substream>> {
    let ending = ending.clone();
    let hear = move |message| match message {
        Message::Ended(status) => ending.lock().status = Some(status),
        Message::Stderr(line) => notify(&marked(&line)),
        Message::Terminal(_) if at_terminal => {
            notify(
                "this service has its own terminal, so you see each line twice; use cepa console",
            );
        }
        Message::Kept {
            found,
            seconds,
            keep,
        } => {
            let keep = Duration::from_secs(keep.into());
            ending.lock().keep = Some(keep);
            for line in since(found, seconds, keep) {
                notify(&line);
            }
            // The output stands behind it.
            stderr::flush(SAID);
        }
        Message::Opened => ending.lock().opened.notify_one(),
        Message::Terminal(_)
        | Message::Break
        | Message::Line(..)
        | Message::OutputEnded
        | Message::Console(_) => {}
    };
    Framed::new(far, Box::new(hear)).paced(stderr::room)
}

/// How long a terminal may take to show a line before what belongs behind it.
const SAID: Duration = Duration::from_millis(200);

/// What is there under the name of a kept console.
fn since(found: Found, seconds: u32, keep: Duration) -> Vec<String> {
    let began = in_words(Duration::from_secs(seconds.into()));
    let keep = in_words(keep);
    let new =
        format!("a new console, kept for {keep} after you leave; the same command attaches again");
    match found {
        Found::Nothing => vec![new],
        Found::Itself => vec![format!(
            "attached again; its command began {began} ago, and this is its latest output"
        )],
        Found::Expired => vec![
            format!("the earlier console was ended, since nobody came back within {keep}"),
            new,
        ],
        Found::Displaced => vec![
            "the earlier console was ended: the server needed its place for another peer"
                .to_owned(),
            new,
        ],
    }
}

/// A line of a command, told from a failure of ours, which begins so.
fn marked(line: &str) -> Cow<'_, str> {
    if line.trim_start().starts_with("cepa:") {
        format!("(command) {line}").into()
    } else {
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io;

    use super::*;
    use crate::splice_end::{Closing, Ended, verdict};

    /// What ends.
    #[derive(Clone)]
    enum End {
        Command(Status),
        Socket,
        SocketReset,
        Substream,
        /// Of a service that owes a message about how.
        Silent,
        Session,
        /// Of a kept console, to which another client attaches.
        TakenOver,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Form {
        Plain,
        Status,
        Console,
    }

    fn how(end: &End, form: Form) -> How {
        let said = |status| match says(status, form != Form::Plain) {
            Says::Status(status) => How::Said(status),
            Says::End => How::Ended,
            Says::Reset => How::Reset,
        };
        match end {
            End::Command(status) => said(Some(status.clone())),
            End::Socket => said(None),
            End::SocketReset if form == Form::Console => How::Said(broke_off()),
            End::SocketReset | End::Substream => How::Reset,
            End::Silent if form == Form::Plain => How::Ended,
            End::Silent => How::Unsaid,
            End::Session => How::Lost,
            End::TakenOver => How::Said(Status::TakenOver),
        }
    }

    fn cell(becomes: Becomes, error_status: Option<u8>) -> String {
        let result = match becomes {
            Becomes::Reconnect => return "again".to_owned(),
            Becomes::Success => Ok(()),
            Becomes::Status(status) => ended(status),
            Becomes::Failure(code) => Err(Failure::new(code, "cepa's own")),
        };
        let status = |failure: Failure| failure.with_error_status(error_status).status();
        result.map_or_else(status, |()| 0).to_string()
    }

    #[test]
    fn a_line_of_a_command_is_no_failure_of_ours_nor_a_signal_its_status() {
        assert_eq!(marked("cepa: link lost"), "(command) cepa: link lost");
        assert_eq!(marked("warning: cepa: x"), "warning: cepa: x");
        let status = |signal| ended(Status::Killed(signal)).unwrap_err().status();
        assert_eq!((status(9), status(126), status(255)), (137, 254, 254));
    }

    #[test]
    fn what_an_end_becomes_is_the_documented_table() {
        let expected = include_str!("service_end_table.txt");
        let mut found: String = expected.split_inclusive("\n\n").next().unwrap().to_owned();
        let mut line = |cells: &[String]| {
            let mut line = format!("{:<23}", cells[0]);
            for cell in &cells[1..] {
                write!(line, " {cell:<12}").unwrap();
            }
            found += line.trim_end();
            found += "\n";
        };
        let head = "what ends|connect|--no-status|--error-st.99|--reconnect|console|--reconnect|forward|pipe";
        line(&head.split('|').map(str::to_owned).collect::<Vec<_>>());
        for (name, end) in [
            ("command exits with 0", End::Command(Status::Exited(0))),
            ("command exits with 3", End::Command(Status::Exited(3))),
            ("command is killed by 9", End::Command(Status::Killed(9))),
            ("socket ends", End::Socket),
            ("socket is reset", End::SocketReset),
            ("substream is reset", End::Substream),
            ("ends without a status", End::Silent),
            ("session is cut", End::Session),
            ("server is stopped", End::Session),
            ("another one attaches", End::TakenOver),
        ] {
            let opened = |form, again| becomes(&how(&end, form), again);
            let forwarded = match how(&end, Form::Plain) {
                How::Ended => Ended::Both {
                    near_left: None,
                    far_left: None,
                },
                _ => Ended::Far(io::ErrorKind::ConnectionReset.into()),
            };
            let pipe = match &end {
                End::Command(status) => cell(becomes(&How::Said(status.clone()), false), None),
                _ => "-".to_owned(),
            };
            // Nobody attaches but a console.
            let not_attached = |cell: String| match end {
                End::TakenOver => "-".to_owned(),
                _ => cell,
            };
            line(&[
                name.to_owned(),
                not_attached(cell(opened(Form::Status, false), None)),
                not_attached(cell(opened(Form::Plain, false), None)),
                not_attached(cell(opened(Form::Status, false), Some(99))),
                not_attached(cell(opened(Form::Status, true), None)),
                cell(opened(Form::Console, false), None),
                cell(opened(Form::Console, true), None),
                not_attached(
                    if verdict(&forwarded).near == Closing::End {
                        "end"
                    } else {
                        "reset"
                    }
                    .to_owned(),
                ),
                pipe,
            ]);
        }
        assert!(
            found == expected,
            "src/service_end_table.txt is not what service_end.rs decides; if the change is meant, replace the file by:\n{found}"
        );
    }
}
