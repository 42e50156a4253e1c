//! `cepa forward -R`: the far end listens, and its connections come to an address here. What is said about that, and the end that
//! asks. (`remote_served.rs` is the other one.)
//!
//! The end that dialled opens all substreams, as it always does, so the far end needs no right to open anything here, and can't
//! have anything connected but the address that was named at this end.
//!
//! ```text
//! program there         cepa serve                        cepa forward            program here
//!                          |    opens cepa.remote.listen     |
//!                          | <-------- length(2) "8080"      |
//!                          | code(1) length(2) text -------> |  0: listening, and where; else why not
//!    | connects            |                                 |
//!    | ------------------> | 01 number(8) -----------------> |
//!    |                     |    opens cepa.remote.accept.N   |
//!    |                     | <-----------------------------> | dials ADDRESS -------> |
//!    | <============================= bytes both ways ============================> |
//! ```
//!
//! The far end listens for as long as the first substream is open. Who asks again for the same place with the same key takes it over (02), since
//! the session that has it may be one that only the far end still believes in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cepa::mux::{ReceivePool, StreamTimeouts, Substream};
use cepa::onion::Onion;
use cepa::session::reserved::{REMOTE_ACCEPT_PREFIX, REMOTE_LISTEN};
use cepa::session::{OpenError, OpenOptions, Session};
use cepa::transports::Terminal;
use cepa::transports::text::clean;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::Connected;
use crate::exit::{Code, Failure, say};
use crate::log::say_once_a_minute;
use crate::offered;
use crate::remote_place::{Place, Remote};
use crate::say::Line;
use crate::standing::{Current, next, place_in};
use crate::upstream::Near;

/// Longest text of a message in bytes: a path has 108.
const TEXT_MAX: usize = 512;

/// How long the far end may take to listen, and whoever asks to say where.
pub(crate) const ASKING: Duration = Duration::from_secs(30);

/// How often a far end is asked again that can't listen at the moment, and how long between.
const AGAIN: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

/// How long until a connection is fetched again that the far end had no room for.
const LATER: Duration = Duration::from_secs(1);

/// What is read of a connection that is not there any more.
pub(crate) const GONE: &str = "no connection of yours waits under this number";

/// What this end holds at most of what has come and is not taken.
const MEMORY: usize = 32 << 20;

/// How a far end answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Listening,
    NotAllowed,
    InUse,
    Failed,
    Full,
}

impl Answer {
    fn of(code: u8) -> Self {
        let known = [
            Self::Listening,
            Self::NotAllowed,
            Self::InUse,
            Self::Failed,
            Self::Full,
        ];
        known
            .get(usize::from(code))
            .copied()
            .unwrap_or(Self::Failed)
    }
}

/// What a far end that listens tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A connection of this number waits.
    Connection(u64),
    /// The same key listens there anew.
    TakenOver,
}

async fn write_text(
    out: &mut (impl AsyncWrite + Unpin),
    head: &[u8],
    text: &str,
) -> io::Result<()> {
    let text = text.as_bytes();
    let text = text.get(..TEXT_MAX).unwrap_or(text);
    let length = u16::try_from(text.len()).unwrap_or_default();
    let message = [head, &length.to_be_bytes(), text].concat();
    out.write_all(&message).await?;
    out.flush().await
}

async fn read_text(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let length = usize::from(from.read_u16().await?);
    if length > TEXT_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The far end: what it is asked for.
pub(crate) async fn asked(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Place, String>> {
    Ok(read_text(from).await?.parse())
}

/// The far end: its answer.
pub(crate) async fn answer(
    out: &mut (impl AsyncWrite + Unpin),
    answer: Answer,
    text: &str,
) -> io::Result<()> {
    write_text(out, &[answer as u8], text).await
}

/// The far end: what happened.
pub(crate) async fn tell(out: &mut (impl AsyncWrite + Unpin), news: News) -> io::Result<()> {
    match news {
        News::Connection(number) => {
            let number = number.to_be_bytes();
            out.write_all(&[&[1][..], &number].concat()).await?;
        }
        News::TakenOver => out.write_all(&[2]).await?,
    }
    out.flush().await
}

/// What the far end tells next; none at its end.
async fn news(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<News>> {
    let mut kind = [0];
    if from.read(&mut kind).await? == 0 {
        return Ok(None);
    }
    match kind {
        [1] => Ok(Some(News::Connection(from.read_u64().await?))),
        [2] => Ok(Some(News::TakenOver)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The service by which a connection is fetched.
fn service_of(number: u64) -> String {
    format!("{REMOTE_ACCEPT_PREFIX}{number:016x}")
}

/// The number in the name of such a service.
pub(crate) fn number_in(service: &str) -> Option<u64> {
    let number = service.strip_prefix(REMOTE_ACCEPT_PREFIX)?;
    let number = u64::from_str_radix(number, 16).ok()?;
    (service_of(number) == service).then_some(number)
}

/// A far end that listens, for as long as this is there.
pub(crate) struct Listening(Onion<Substream>);

/// Has the far end listen, and says where it does.
pub(crate) async fn ask(session: &Session, remote: &Remote) -> Result<Listening, Failure> {
    let (place, peer) = (&remote.place, offered::name(session));
    let lost = |why: &str| {
        let why = format!("{peer} was asked to listen on {place}, and {why}");
        Failure::new(Code::Lost, why)
    };
    let options = OpenOptions::new().timeouts(StreamTimeouts::NONE);
    let asking = async {
        let opened = session.open_with(REMOTE_LISTEN, &options).await;
        let mut far = opened.map_err(|e| match e {
            OpenError::Refused { .. } => Failure::new(
                Code::Refused,
                format!(
                    "{peer} cannot listen for others (no -R there: an older cepa, or not `cepa serve`)"
                ),
            ),
            e => e.into(),
        })?;
        let answered = async {
            write_text(&mut far, &[], &place.to_string()).await?;
            let code = far.read_u8().await?;
            Ok::<_, io::Error>((Answer::of(code), read_text(&mut far).await?))
        };
        let (code, text) = answered.await.map_err(|e| lost(&e.to_string()))?;
        Ok((far, code, text))
    };
    let asked = timeout(ASKING, asking).await;
    let (far, code, text) = asked.unwrap_or_else(|_| Err(lost("did not answer in time")))?;
    let text = clean(&text, TEXT_MAX);
    if code != Answer::Listening {
        let why = format!("{peer} does not listen on {place}: {text}");
        let passing = matches!(code, Answer::InUse | Answer::Full);
        return Err(Failure::new(Code::Refused, why).passing(passing));
    }
    let at = text.replace(' ', " and ");
    let line = format!(
        "{peer} listens on {at}; its connections go to {}",
        remote.to
    );
    let line = Line::from(line).with("address", text);
    let line = line
        .with("to", &remote.to)
        .with("peer", session.peer().id());
    say(line.bare());
    Ok(Listening(far))
}

/// How listening at the far end has ended.
enum Ended {
    TakenOver,
    /// Its substream has.
    Over,
}

/// What the connections of one `-R` have in common.
struct Carrying {
    remote: Remote,
    memory: ReceivePool,
    room: Arc<Semaphore>,
}

/// Carries what comes to one place at the far end, over this session and the ones behind it; ends only by failure.
pub(crate) async fn carry(
    remote: Remote,
    mut listening: Listening,
    mut connection: Arc<Connected>,
    mut standing: Current,
    room: Arc<Semaphore>,
) -> Failure {
    let carrying = Arc::new(Carrying {
        remote,
        memory: ReceivePool::new(MEMORY),
        room,
    });
    let place = &carrying.remote.place;
    // What is open goes on, whoever listens.
    let mut open = JoinSet::new();
    loop {
        let mut later = standing.clone();
        let ended = tokio::select! {
            ended = take(&mut listening, &carrying, &connection, &mut open) => Some(ended),
            // The session takes nothing more, or is over.
            _ = next(&mut later, &connection) => None,
        };
        let peer = offered::name(&connection.session);
        match ended {
            Some(Ended::TakenOver) => {
                let why = format!(
                    "another `cepa forward -R` with the same key listens on {place} of {peer} now"
                );
                return Failure::new(Code::TakenOver, why);
            }
            Some(Ended::Over) if connection.lost().await.is_none() => {
                let why = format!("{peer} no longer listens on {place}; its log may say why");
                return Failure::new(Code::Refused, why);
            }
            _ => {}
        }
        drop(listening);
        listening = loop {
            let Some(fresh) = next(&mut standing, &connection).await else {
                // The command ends, and says why itself.
                return std::future::pending().await;
            };
            connection = fresh;
            match ask_again(&connection.session, &carrying.remote).await {
                Ok(listening) => break listening,
                // It was lost again.
                Err(_) if connection.lost().await.is_some() => {}
                Err(failure) => return failure,
            }
        };
    }
}

/// As [`ask`], where the port may be free a moment later.
async fn ask_again(session: &Session, remote: &Remote) -> Result<Listening, Failure> {
    for _ in 0..AGAIN {
        match ask(session, remote).await {
            Err(failure) if failure.code == Code::Refused && failure.is_transient() => {
                sleep(PAUSE).await;
            }
            done => return done,
        }
    }
    ask(session, remote).await
}

/// Fetches what comes, until the far end listens no more.
async fn take(
    listening: &mut Listening,
    carrying: &Arc<Carrying>,
    connection: &Arc<Connected>,
    open: &mut JoinSet<()>,
) -> Ended {
    loop {
        while open.try_join_next().is_some() {}
        match news(&mut listening.0).await {
            Ok(Some(News::Connection(number))) => {
                // Further ones wait at the far end meanwhile.
                let place = place_in(&carrying.room).await;
                let (carrying, connection) = (Arc::clone(carrying), Arc::clone(connection));
                open.spawn(async move {
                    fetch(number, &carrying, &connection).await;
                    drop(place);
                });
            }
            Ok(Some(News::TakenOver)) => return Ended::TakenOver,
            Ok(None) | Err(_) => return Ended::Over,
        }
    }
}

/// One connection. Its errors are told and are its own.
async fn fetch(number: u64, carrying: &Carrying, connection: &Connected) {
    let session = &connection.session;
    let (peer, remote) = (session.peer().id(), &carrying.remote);
    let name = format!("-R {}", remote.place);
    let tell = |why: String| {
        let line = Line::from(format!("{name}: {why}"));
        say_once_a_minute(peer, &why, line.with("peer", peer));
    };
    let as_long_as_it_takes = OpenOptions::new()
        .timeouts(StreamTimeouts::NONE)
        .patience(Duration::MAX);
    let service = service_of(number);
    let mut far = loop {
        match session.open_with(&service, &as_long_as_it_takes).await {
            Ok(far) => break far,
            // The session did not last: that is told of the session.
            Err(OpenError::Session(_)) => return,
            Err(OpenError::Refused { reason, .. }) if reason == GONE => return,
            // Some limit of the far end, where it still waits.
            Err(e @ OpenError::Refused { .. }) => {
                tell(Failure::from(e).message);
                sleep(LATER).await;
            }
            Err(e) => return tell(Failure::from(e).message),
        }
    };
    let held = (session.clone(), carrying.memory.clone());
    match Near::open(&name, &remote.to, &Terminal::default(), &held, None).await {
        Ok(near) => {
            let served = Box::new(near).serve(&remote.to, Box::new(far), |far| far.wire_mut());
            if let Err(why) = served.await {
                tell(why);
            }
        }
        Err(e) => {
            // There it is a connection that was cut, and none that has ended.
            far.wire_mut().reset(0);
            tell(e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bytes_are_those_of_the_documentation() {
        let mut out = Vec::new();
        write_text(&mut out, &[], "8080").await.unwrap();
        assert_eq!(out, b"\x00\x048080");
        let place = asked(&mut &out[..]).await.unwrap().unwrap();
        assert_eq!(place.to_string(), "8080");
        out.clear();
        answer(&mut out, Answer::InUse, "it is").await.unwrap();
        assert_eq!(out, b"\x02\x00\x05it is");
        out.clear();
        tell(&mut out, News::Connection(258)).await.unwrap();
        tell(&mut out, News::TakenOver).await.unwrap();
        assert_eq!(out, b"\x01\0\0\0\0\0\0\x01\x02\x02");
        let mut all = &out[..];
        let first = news(&mut all).await.unwrap();
        assert_eq!(first, Some(News::Connection(258)));
        assert_eq!(news(&mut all).await.unwrap(), Some(News::TakenOver));
        assert_eq!(news(&mut all).await.unwrap(), None);
        assert_eq!(service_of(258), "cepa.remote.accept.0000000000000102");
    }

    #[tokio::test]
    async fn what_a_hostile_end_says_is_bounded_and_judged() {
        let long = [&[0xff, 0xff][..], &[b'8'; 600]].concat();
        assert!(asked(&mut &long[..]).await.is_err());
        assert!(asked(&mut &b"\x00\x02\xff\xff"[..]).await.unwrap().is_err());
        assert!(asked(&mut &b"\x00"[..]).await.is_err());
        assert!(news(&mut &b"\x03"[..]).await.is_err());
        assert!(news(&mut &b"\x01\x00"[..]).await.is_err());
        for (service, number) in [
            ("cepa.remote.accept.0000000000000102", Some(258)),
            ("cepa.remote.accept.102", None),
            ("cepa.remote.accept.+000000000000102", None),
            ("cepa.remote.accept.000000000000010A", None),
            ("cepa.remote.accept.", None),
        ] {
            assert_eq!(number_in(service), number, "{service}");
        }
        // As many as the wire can say, and one more.
        let codes: Vec<Answer> = (0..6).map(Answer::of).collect();
        for (code, answer) in codes.iter().take(5).enumerate() {
            assert_eq!(*answer as usize, code);
        }
        assert_eq!(codes[5], Answer::Failed);
    }
}
