//! Consoles that a server keeps for whoever asks: lists them (`--attached`), or ends one (`--end`). No terminal is needed.

use std::fmt::Write as _;
use std::time::Duration;

use cepa::identity::Identity;
use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::reserved::{HANG_UP_PREFIX, KEPT};
use cepa::session::{OpenError, Session};
use tokio::io::AsyncReadExt as _;

use super::wire::{Decoder, Message, NotUnderstood, Status};
use crate::args;
use crate::exit::{self, Code, Failure, say};
use crate::keep::in_words;
use crate::reconnect::Reconnect;
use crate::say::Line;
use crate::service_end;

/// More than a server keeps for one peer, whoever wrote it.
const MOST: usize = 1000;

/// What is wanted.
pub(super) enum Wants<'a> {
    /// The consoles at this service, or at all where that is empty.
    List,
    /// The end of the one of this name.
    End(&'a str),
}

pub(super) async fn run(
    args: &args::Console,
    identity: &Identity,
    service: &str,
    wants: Wants<'_>,
) -> Result<(), Failure> {
    let mut once = Reconnect::new(&args.address, &args.dialling, identity, None);
    let connection = once.first(false).await?;
    let session = &connection.session;
    let done = match wants {
        Wants::List => list(session, service).await,
        Wants::End(name) => end(session, service, name).await,
    };
    connection.close().await;
    done
}

async fn list(session: &Session, service: &str) -> Result<(), Failure> {
    let far = open(session, KEPT, KEPT).await?;
    let (all, _) = heard(far).await?;
    let mut rows: Vec<[String; 3]> = Vec::new();
    for message in all {
        let Message::Console(it) = message else {
            continue;
        };
        if !service.is_empty() && it.service != service {
            continue;
        }
        let time = |seconds: u32| in_words(Duration::from_secs(seconds.into()));
        let (began, left) = (time(it.seconds), time(it.left));
        let state = if it.attached {
            format!("begun {began} ago, attached")
        } else {
            format!("begun {began} ago, kept for {left} more")
        };
        rows.push([it.name, it.service, state]);
    }
    if rows.is_empty() {
        let line =
            "no consoles are kept for you; `cepa console ADDR SERVICE --attach NAME` makes one";
        say(Line::from(line).with("peer", session.peer().id()));
    }
    let width = |at: usize| {
        let all = rows.iter().filter_map(|row| row.get(at));
        all.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (names, services) = (width(0), width(1));
    let mut text = String::new();
    for [name, service, state] in &rows {
        let _ = writeln!(text, "{name:names$}  {service:services$}  {state}");
    }
    exit::print(&text)
}

async fn end(session: &Session, service: &str, name: &str) -> Result<(), Failure> {
    let far = open(
        session,
        &format!("{HANG_UP_PREFIX}{name}.{service}"),
        service,
    )
    .await?;
    match heard(far).await?.1 {
        Status::Exited(0) => {
            let line = Line::from(format_args!("ended the console {name} of {service}"));
            say(line
                .with("peer", session.peer().id())
                .with("service", service));
            Ok(())
        }
        status => service_end::ended(status),
    }
}

/// Opens what has this name; a refusal names what was typed.
async fn open(session: &Session, name: &str, typed: &str) -> Result<Onion<Substream>, Failure> {
    let opened = session.open(name).await;
    opened.map_err(|e| without_attach(service_end::as_typed(e, typed)))
}

/// All that is said, and how it ended.
async fn heard(mut far: Onion<Substream>) -> Result<(Vec<Message>, Status), Failure> {
    let (mut decoder, mut all, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
    loop {
        let n = far.read(&mut bytes).await;
        let n = n.map_err(|e| Failure::new(Code::Lost, format!("no answer: {e}")))?;
        if n == 0 {
            let why = "the server broke off; see the server's log";
            return Err(Failure::new(Code::Lost, why));
        }
        let some = bytes.get(..n).unwrap_or_default();
        let messages = decoder
            .take(some, &mut Vec::new())
            .map_err(not_understood)?;
        for message in messages {
            match message {
                Message::Ended(status) => return Ok((all, status)),
                message if all.len() < MOST => all.push(message),
                _ => return Err(not_understood(NotUnderstood)),
            }
        }
    }
}

fn not_understood(e: NotUnderstood) -> Failure {
    Failure::new(Code::Other, std::io::Error::from(e).to_string())
}

/// Why a kept console could not be had. A server that does not know the form knows no such service.
pub(super) fn without_attach(error: OpenError) -> Failure {
    let unknown =
        matches!(&error, OpenError::Refused { reason, .. } if reason.starts_with(NOT_OPEN));
    let failure = Failure::from(error);
    if unknown {
        failure
            .with("if it works without --attach, the server's cepa is older and keeps no consoles")
    } else {
        failure
    }
}

/// The same of one that somebody else has.
pub(super) fn without_watch(error: OpenError) -> Failure {
    let unknown =
        matches!(&error, OpenError::Refused { reason, .. } if reason.starts_with(NOT_OPEN));
    let failure = Failure::from(error);
    if unknown {
        failure.with(
            "if it works without --watch, the server's cepa is older and shows nobody's console",
        )
    } else {
        failure
    }
}

/// As a refusal begins where no such service is open to us.
const NOT_OPEN: &str = "no service of this name";
