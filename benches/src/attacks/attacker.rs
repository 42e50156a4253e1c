//! One end of a TCP connection that writes any bytes, and listens to what comes back in a thread of its own, from
//! when it is told to. It stops by itself when the other end closes, takes no more, or has grown too large.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::victim::Progress;
use super::wire::{ACK, DATA, GO_AWAY, HEADER_LEN, PING, RST, SYN, WINDOW, header, parse};
use crate::Outcome;

/// A victim that takes nothing for so long stands still.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) resets: u64,
    pub(super) pongs: u64,
    pub(super) go_away: Option<u32>,
    pub(super) closed: bool,
}

/// How far an attack came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// All of it was taken.
    Through,
    /// The victim ended the session.
    Closed,
    /// It took no more, and did not close.
    Stalled,
    /// It was told to stop, because the victim had grown too large.
    Stopped,
}

pub(super) struct Attacker {
    socket: TcpStream,
    heard: Arc<Mutex<Heard>>,
    listening: bool,
    progress: Arc<Progress>,
}

impl Attacker {
    pub(super) fn connect(port: u16, progress: &Arc<Progress>) -> Outcome<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(STANDS_STILL))?;
        Ok(Self {
            socket,
            heard: Arc::default(),
            listening: false,
            progress: Arc::clone(progress),
        })
    }

    /// From here on what comes back is read.
    pub(super) fn listen(&mut self) -> Outcome<()> {
        if !std::mem::replace(&mut self.listening, true) {
            let (socket, heard) = (self.socket.try_clone()?, Arc::clone(&self.heard));
            thread::spawn(move || {
                // However it ends, it has ended.
                let _ = hear(socket, &heard);
                lock(&heard).closed = true;
            });
        }
        Ok(())
    }

    pub(super) fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Went {
        match self.socket.write_all(bytes) {
            Ok(()) => {
                let bytes = bytes.len() as u64;
                self.progress.sent.fetch_add(bytes, Ordering::Relaxed);
                Went::Through
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Went::Stalled,
                _ => Went::Closed,
            },
        }
    }

    /// Sends what `frame` makes for 0, 1, 2, … until it makes nothing.
    pub(super) fn flood(&mut self, mut frame: impl FnMut(u32, &mut Vec<u8>) -> bool) -> Went {
        let mut wire = Vec::with_capacity(80 << 10);
        let mut number = 0;
        loop {
            wire.clear();
            let mut more = true;
            while more && wire.len() < 64 << 10 {
                more = frame(number, &mut wire);
                number += 1;
            }
            if self.progress.too_large.load(Ordering::Relaxed) {
                return Went::Stopped;
            }
            if self.progress.ended.get().is_some() {
                return Went::Closed;
            }
            match self.send(&wire) {
                Went::Through if more => {}
                went => return went,
            }
        }
    }

    /// A round trip, so that everything before it was looked at. Says whether the answer came.
    pub(super) fn settle(&mut self, limit: Duration) -> Outcome<bool> {
        self.listen()?;
        let before = self.heard().pongs;
        if self.send(&header(PING, SYN, 0, 7)) != Went::Through {
            return Ok(false);
        }
        self.wait(limit, |heard| heard.pongs > before);
        Ok(self.heard().pongs > before)
    }

    /// Waits for something to be heard, or for the end.
    pub(super) fn wait(&self, limit: Duration, enough: impl Fn(&Heard) -> bool) {
        let begun = Instant::now();
        loop {
            let heard = self.heard();
            if heard.closed || enough(&heard) || begun.elapsed() > limit {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the connection in order.
    pub(super) fn shut(&self) {
        // It may have been closed by the other end.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends it with a TCP reset, which the kernel sends when what came was not read. Not after
    /// [`Attacker::listen`].
    pub(super) fn abort(mut self) {
        self.send(&header(PING, SYN, 0, 7));
        thread::sleep(Duration::from_millis(200));
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hear(socket: TcpStream, heard: &Mutex<Heard>) -> io::Result<()> {
    let mut socket = io::BufReader::with_capacity(64 << 10, socket);
    loop {
        let mut bytes = [0; HEADER_LEN];
        socket.read_exact(&mut bytes)?;
        let seen = parse(bytes);
        match seen.kind {
            DATA => {
                let mut body = socket.by_ref().take(seen.length.into());
                io::copy(&mut body, &mut io::sink())?;
            }
            PING if seen.flags & ACK != 0 => lock(heard).pongs += 1,
            GO_AWAY => lock(heard).go_away = Some(seen.length),
            _ => {}
        }
        if matches!(seen.kind, DATA | WINDOW) && seen.flags & RST != 0 {
            lock(heard).resets += 1;
        }
    }
}
