//! What the tunnels lead to, and who uses them: a server of bulk and of echoes, and its clients.
//!
//! A connection begins with eight bytes, big endian: how many bytes the server is to send, or 0 for an echo of all that comes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::measure::median;

/// Bytes of a small message.
const MESSAGE: usize = 64;

const PIECE: usize = 64 << 10;

/// Whatever hangs is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the server, which lives as long as the process.
pub(super) fn serve() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who leaves has seen enough.
            std::thread::spawn(move || answer(stream).ok());
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = u64::from_be_bytes(wanted);
    if left == 0 {
        let mut message = [0; MESSAGE];
        loop {
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
        }
    }
    let piece: Vec<u8> = (0..=u8::MAX).cycle().take(PIECE).collect();
    while left > 0 {
        let now = piece.len().min(usize::try_from(left)?);
        stream.write_all(piece.get(..now).unwrap_or_default())?;
        left -= u64::try_from(now)?;
    }
    Ok(())
}

fn connect(at: SocketAddr, wanted: u64) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&wanted.to_be_bytes())?;
    Ok(stream)
}

/// Seconds for so many bytes, from their first one on.
pub(super) fn bulk(at: SocketAddr, bytes: u64) -> Outcome<f64> {
    let mut stream = connect(at, bytes + 1)?;
    stream.read_exact(&mut [0])?;
    let (begun, mut left) = (Instant::now(), bytes);
    let mut buffer = vec![0; 4 * PIECE];
    while left > 0 {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err("the tunnel ended early".into());
        }
        left = left.saturating_sub(u64::try_from(n)?);
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// The middle of the round trips of a small message in that time, in microseconds.
pub(super) fn round_trip(at: SocketAddr, time: Duration) -> Outcome<f64> {
    let mut stream = connect(at, 0)?;
    let (mut message, mut trips) = ([7; MESSAGE], Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time || trips.len() < 10 {
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    // The first ones open the way.
    let warm = trips.len() / 10;
    Ok(median(trips.get(warm..).unwrap_or_default()))
}

/// Bulk that goes on until it is dropped.
pub(super) struct Beside {
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Beside {
    pub(super) fn start(at: SocketAddr) -> Outcome<Self> {
        let mut stream = connect(at, u64::MAX)?;
        stream.read_exact(&mut [0])?;
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 4 * PIECE];
            while !seen.load(Ordering::Relaxed) && matches!(stream.read(&mut buffer), Ok(1..)) {}
        });
        Ok(Self {
            over,
            reader: Some(reader),
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.reader.take().map(JoinHandle::join);
    }
}
