//! A console's other end: the substream of a service with messages beside its data.
//!
//! The first message tells the terminal, which the command has to know when it starts; later ones go to
//! the device as they come. When the service has ended, the last message tells how.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cepa::transports::{Control, Stream, Terminal, WindowSize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use super::framed::{Framed, Outbox};
use super::wire::{Message, Status};

/// How long the first message may take: as long as the header of a substream.
const FIRST: Duration = Duration::from_secs(10);

/// The terminal of who sits at the console, as far as it is known.
pub(crate) struct Served<S> {
    pub(crate) far: Framed<S>,
    terminal: watch::Receiver<Option<Terminal>>,
    device: Arc<OnceLock<Control>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Served<S> {
    pub(crate) fn new(far: S) -> Self {
        let (sender, terminal) = watch::channel(None);
        let device = Arc::new(OnceLock::<Control>::new());
        let opened = Arc::clone(&device);
        let hear = move |message| match (message, opened.get()) {
            (Message::Terminal(terminal), device) => {
                if let Some(device) = device {
                    // A device that cannot be told goes on as it is.
                    let _ = device.resize(terminal.size);
                }
                sender.send_replace(Some(terminal));
            }
            (Message::Break, Some(device)) => device.send_break(),
            (Message::Line(line, on), Some(device)) => device.set_line(line, on),
            // What comes from the service, and is nobody else's to say.
            (_, _) => {}
        };
        Self {
            far: Framed::new(far, Box::new(hear)),
            terminal,
            device,
        }
    }

    /// Waits until the terminal was told; one that speaks before gets the usual one.
    pub(crate) async fn terminal(&mut self) -> io::Result<Terminal> {
        let announced = async {
            while self.terminal.borrow().is_none() && self.far.fill().await? {}
            Ok(self.terminal.borrow().clone().unwrap_or_default())
        };
        match timeout(FIRST, announced).await {
            Ok(terminal) => terminal,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// From now on changes go to this stream's device.
    pub(crate) fn joined_to(&self, near: &Stream) {
        let Some(device) = near.control() else {
            return;
        };
        // It may have changed since the device was opened.
        if let Some(terminal) = &*self.terminal.borrow() {
            let _ = device.resize(terminal.size);
        }
        let _ = self.device.set(device);
    }

    /// The window, as far as it was told.
    pub(crate) fn size(&self) -> WindowSize {
        let terminal = self.terminal.borrow();
        terminal.as_ref().map(|it| it.size).unwrap_or_default()
    }

    pub(crate) fn outbox(&self) -> Outbox {
        self.far.outbox()
    }
}

/// How a command ended.
pub(crate) fn ended(exit: Option<ExitStatus>) -> Status {
    let number = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    match exit {
        Some(exit) => match (exit.code(), exit.signal()) {
            (Some(code), _) => Status::Exited(number(code)),
            (None, Some(signal)) => Status::Killed(number(signal)),
            (None, None) => Status::Failed("the command ended in an unknown way".to_owned()),
        },
        None => Status::Failed("it is not known how the command ended".to_owned()),
    }
}
