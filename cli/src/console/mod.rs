//! `cepa console`: this terminal at a service of a peer.
//!
//! ```text
//!   keyboard --> keys --> typed, up to 64 KiB --> messages --> substream
//!   screen   <------------------------------------ data   <-- substream
//!   window changes, ~B --> outbox --> messages
//! ```
//!
//! The terminal is raw while the service is joined, and only then: questions about a new peer and
//! passphrases come before. The three ways run side by side, so that a service which takes no input
//! can still be left, and one that says much can still be typed at.
//!
//! A server that does not know consoles (a program of one's own on the library) gets the plain service:
//! bytes pass, window sizes do not.

mod chatter;
pub(crate) mod framed;
mod keys;
mod raw;
pub(crate) mod served;
pub(crate) mod wire;

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::OpenError;
use cepa::transports::{self, Endpoint, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::args;
use crate::connect::{reset_by_peer, service};
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::link::Link;
use crate::signal::Signals;
use chatter::Chatter;
use framed::{Framed, Outbox};
use keys::{Key, Keys};
use raw::Raw;
use wire::{Message, Status};

/// Typed and not taken by the service yet. Beyond that the keyboard is not read, escapes included.
const TYPED: usize = 64 * 1024;

pub(crate) async fn run(args: args::Console) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let service = service(&args.address, &args.service)?;
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(
            Code::Usage,
            "a console needs a terminal as standard input and output; for pipes and files use `cepa connect`",
        ));
    }
    let chatter = Chatter::start();
    let link = Link::to_hearing(&args.address, &args.trust, &identity, chatter.sink()).await?;
    let result = attached(&link, &service, args.escape.byte(), &chatter).await;
    link.close().await;
    result
}

/// How it came to an end.
enum Outcome {
    /// `~.`, the end of the keyboard, or a signal.
    Left,
    /// Of the service's output.
    Ended(io::Result<()>),
}

async fn attached(
    link: &Link,
    service: &str,
    escape: Option<u8>,
    chatter: &Chatter,
) -> Result<(), Failure> {
    let status = Arc::new(Mutex::new(None));
    let (far, outbox) = open(link, service, Arc::clone(&status)).await?;
    let stdio: Endpoint = "stdio:"
        .parse()
        .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
    let raw = Raw::terminal()
        .map_err(|e| Failure::new(Code::Other, format!("cannot set the terminal up: {e}")))?;
    let near = transports::dial(&stdio).await?;
    let name = if service.is_empty() {
        "the service"
    } else {
        service
    };
    let leave = match escape {
        Some(escape) => format!("; {0}. leaves, {0}? helps", char::from(escape)),
        None => String::new(),
    };
    say(format_args!(
        "at {name} of {}{leave}",
        link.session.peer().id()
    ));
    let outcome = {
        let _raw = raw
            .enter()
            .map_err(|e| Failure::new(Code::Other, format!("cannot set the terminal up: {e}")))?;
        chatter.raw(true);
        join(near, far, &raw, &outbox, escape).await
    };
    chatter.raw(false);
    if let Outcome::Left = outcome {
        // The cursor stands behind what the service said last.
        raw::new_line();
        say(format_args!("left {name}"));
    }
    let status = status.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, status) {
        (Outcome::Left, _)
        | (Outcome::Ended(_), Some(Status::Exited(0)))
        | (Outcome::Ended(Ok(())), None) => Ok(()),
        (Outcome::Ended(_), Some(status)) => Err(Failure::new(Code::Other, status.to_string())),
        (Outcome::Ended(Err(e)), None) => {
            let lost = if reset_by_peer(&e) {
                None
            } else {
                link.lost().await
            };
            Err(lost.unwrap_or_else(|| {
                let message = format!("the service ended abnormally: {e}");
                Failure::new(Code::Other, message)
            }))
        }
    }
}

/// A substream with messages beside its data, or the plain one where the server knows no consoles.
trait Far: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Far for T {}

async fn open(
    link: &Link,
    service: &str,
    status: Arc<Mutex<Option<Status>>>,
) -> Result<(Box<dyn Far>, Outbox), Failure> {
    let far: Onion<Substream> = match link
        .session
        .open(&format!("{}{service}", wire::PREFIX))
        .await
    {
        Ok(far) => far,
        Err(OpenError::Refused { .. }) => {
            let plain = link.session.open(service).await?;
            say("the server has no consoles: the size of the window is not passed on");
            return Ok((Box::new(plain), Outbox::default()));
        }
        Err(e) => return Err(e.into()),
    };
    let hear = move |message| {
        if let Message::Ended(ended) = message {
            *status.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        }
    };
    let far = Framed::new(far, Box::new(hear));
    let outbox = far.outbox();
    outbox.push(Message::Terminal(raw::describe()));
    Ok((Box::new(far), outbox))
}

async fn join(
    near: Stream,
    far: Box<dyn Far>,
    raw: &Raw,
    outbox: &Outbox,
    escape: Option<u8>,
) -> Outcome {
    let (keyboard, screen) = split(near);
    let (output, input) = split(far);
    let typed = Typed::default();
    let mut signals = Signals::watch();
    let sending = send(input, &typed);
    let windows = watch_window(outbox, &typed);
    tokio::pin!(sending);
    let mut reading = std::pin::pin!(show(output, screen));
    let mut typing = std::pin::pin!(type_in(keyboard, &typed, raw, outbox, Keys::new(escape)));
    let mut windows = std::pin::pin!(windows);
    let mut takes_input = true;
    loop {
        tokio::select! {
            ended = &mut reading => return Outcome::Ended(ended),
            () = &mut typing => return Outcome::Left,
            () = signals.asked_to_end() => return Outcome::Left,
            // What it still says tells why.
            _ = &mut sending, if takes_input => takes_input = false,
            () = &mut windows => {}
        }
    }
}

/// What was typed, on its way.
#[derive(Default)]
struct Typed {
    bytes: Mutex<Vec<u8>>,
    /// Something is to be sent.
    more: Notify,
    /// There is room again.
    room: Notify,
}

impl Typed {
    fn push(&self, bytes: &[u8]) {
        self.bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(bytes);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<u8> {
        let taken = std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        self.room.notify_one();
        taken
    }

    async fn wait_for_room(&self) {
        while self
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
            >= TYPED
        {
            self.room.notified().await;
        }
    }
}

async fn send(mut input: WriteHalf<Box<dyn Far>>, typed: &Typed) -> io::Result<()> {
    loop {
        let bytes = typed.take();
        input.write_all(&bytes).await?;
        input.flush().await?;
        typed.more.notified().await;
    }
}

async fn show(mut output: ReadHalf<Box<dyn Far>>, mut screen: WriteHalf<Stream>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = output.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // A screen that is gone ends the keyboard too.
        let _ = screen.write_all(buffer.get(..n).unwrap_or_default()).await;
        let _ = screen.flush().await;
    }
}

/// Ends when somebody wants to leave, or the keyboard is gone.
async fn type_in(
    mut keyboard: ReadHalf<Stream>,
    typed: &Typed,
    raw: &Raw,
    outbox: &Outbox,
    mut keys: Keys,
) {
    let mut buffer = [0; 4096];
    loop {
        typed.wait_for_room().await;
        let n = match keyboard.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        for key in keys.read(buffer.get(..n).unwrap_or_default()) {
            match key {
                Key::Bytes(bytes) => typed.push(&bytes),
                Key::Leave => return,
                Key::Break => {
                    outbox.push(Message::Break);
                    typed.more.notify_one();
                }
                Key::Suspend => {
                    raw.suspend();
                    outbox.push(Message::Terminal(raw::describe()));
                    typed.more.notify_one();
                }
                Key::Help => raw::tell(HELP),
            }
        }
    }
}

const HELP: &[&str] = &[
    "Escapes, at the start of a line, with the default escape character:",
    "  ~.   leave the console; a command on a terminal of the other end is hung up",
    "  ~B   send a break, where a serial line is below the service",
    "  ~^Z  suspend this program",
    "  ~~   the character itself",
    "  ~?   this text",
];

/// Tells the other end of each new size of the window. Never ends.
async fn watch_window(outbox: &Outbox, typed: &Typed) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return std::future::pending().await;
    };
    while changes.recv().await.is_some() {
        outbox.push(Message::Terminal(raw::describe()));
        typed.more.notify_one();
    }
    std::future::pending::<()>().await;
}
