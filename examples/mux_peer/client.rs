//! The client: opens every stream, and judges.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cepa::Side;
use cepa::mux::{self, Mux, Substream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::{Failure, Options, pattern, sum, tail, wrap};

const ALL: &str = "echo,halfclose,reset,srvreset,openclose,ping,slow,window,goaway";

pub(crate) async fn run(options: &Options) -> Result<String, Failure> {
    let port = u16::try_from(options.number("port", 0))?;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let io = wrap(tcp, Side::Client, options).await?;
    let (session, driver) = mux::mux(io, Side::Client, options.config());
    let driver = tokio::spawn(driver);
    let which = match options.text("scenario") {
        None | Some("all") => ALL,
        Some(which) => which,
    };
    let mut failed = false;
    let mut results = Vec::new();
    for name in which.split(',') {
        let begun = Instant::now();
        let result = timeout(Duration::from_secs(30), scenario(&session, name, options)).await;
        let result = result.unwrap_or_else(|_| Err("no end within 30 s".into()));
        let seconds = begun.elapsed().as_secs_f64();
        let word = match &result {
            Ok(note) if note == "n/a" => "n/a",
            Ok(_) => "ok",
            Err(_) => "FAILED",
        };
        match result {
            Ok(note) => println!("{name} {word} {note} {seconds:.2}s"),
            Err(error) => {
                failed = true;
                println!("{name} FAILED:{error} {seconds:.2}s");
            }
        }
        results.push(format!("{name}={word}:{seconds:.2}s"));
    }
    session.close().await;
    let _ = driver.await;
    let results = results.join(" ");
    if failed {
        Err(results.into())
    } else {
        Ok(results)
    }
}

async fn scenario(session: &Mux, name: &str, options: &Options) -> Result<String, Failure> {
    match name {
        "echo" => {
            let streams = options.number("streams", 100);
            many(session, streams, streams, |i| pattern(1 << 20, i as u64)).await
        }
        "halfclose" => ask_hash(session, "HASH", pattern(65536, 1)).await,
        "reset" => {
            let mut stream = open(session, "ECHO").await?;
            stream.write_all(&pattern(100_000, 9)).await?;
            drop(stream); // resets
            sleep(Duration::from_millis(100)).await;
            echo(session, pattern(1000, 1)).await
        }
        "srvreset" => match ask(session, "RESET").await {
            Ok(line) if line == "CANT" => Ok("n/a".into()),
            Ok(line) => Err(format!("wanted a reset, got {line:?}").into()),
            Err(error) => {
                echo(session, pattern(1000, 1)).await?;
                Ok(format!("({error})"))
            }
        },
        "openclose" => {
            let count = options.number("count", 10_000);
            many(session, count, 32, |i| Bytes::from(format!("hi {i}"))).await
        }
        "ping" => {
            let round_trip = session.ping().await?;
            let line = ask(session, "PING").await?;
            if line == "CANT" || line.starts_with("PONG ") {
                Ok(format!("({} us, {line})", round_trip.as_micros()))
            } else {
                Err(line.into())
            }
        }
        "slow" => slow(session).await,
        "window" => {
            let mib = options.number("mib", 64);
            let data = pattern(mib << 20, 4);
            let begun = Instant::now();
            ask_hash(session, "HASH", data).await?;
            let megabytes = u32::try_from(mib)?;
            Ok(format!(
                "({:.0}MiB/s)",
                f64::from(megabytes) / begun.elapsed().as_secs_f64()
            ))
        }
        "goaway" => goaway(session).await,
        other => Err(format!("no scenario {other:?}; there are {ALL}").into()),
    }
}

async fn open(session: &Mux, command: &str) -> Result<Substream, Failure> {
    let mut stream = session.open().await?;
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    Ok(stream)
}

/// Sends `data`, reads it back while sending, then ends both directions. The end is sent last,
/// because tokio-yamux ignores credit for a stream whose other direction has ended.
async fn echo(session: &Mux, data: Bytes) -> Result<String, Failure> {
    let stream = open(session, "ECHO").await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await?;
        io::Result::Ok(write)
    });
    let mut back = vec![0; data.len()];
    read.read_exact(&mut back).await?;
    writer.await??.shutdown().await?;
    if sum(&back) != sum(&data) {
        return Err("SHA-256 differs".into());
    }
    match read.read(&mut [0]).await? {
        0 => Ok(String::new()),
        _ => Err("bytes behind the echo".into()),
    }
}

/// `count` echoes, `at_once` at a time.
async fn many(
    session: &Mux,
    count: usize,
    at_once: usize,
    data: fn(usize) -> Bytes,
) -> Result<String, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (session, next) = (session.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok(());
                }
                if let Err(error) = echo(&session, data(i)).await {
                    return Err(Failure::from(format!("stream {i}: {error}")));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(String::new())
}

/// HASH or SLOW: sends everything, ends this direction, reads the answer to its end.
async fn ask_hash(session: &Mux, command: &str, data: Bytes) -> Result<String, Failure> {
    let mut stream = open(session, command).await?;
    let want = [
        format!("{} {}\n", sum(&data), data.len()).into_bytes(),
        tail().to_vec(),
    ]
    .concat();
    stream.write_chunk(data).await?;
    stream.shutdown().await?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await?;
    if got == want {
        return Ok(String::new());
    }
    Err(format!("the answer differs: {} of {} bytes", got.len(), want.len()).into())
}

async fn ask(session: &Mux, command: &str) -> Result<String, Failure> {
    let mut stream = BufReader::new(open(session, command).await?);
    let mut line = String::new();
    let n = timeout(Duration::from_secs(15), stream.read_line(&mut line)).await??;
    if n == 0 {
        return Err("end of stream instead of an answer".into());
    }
    stream.shutdown().await?;
    Ok(line.trim().to_owned())
}

async fn slow(session: &Mux) -> Result<String, Failure> {
    let begun = Instant::now();
    let beside = session.clone();
    let unread =
        tokio::spawn(async move { ask_hash(&beside, "SLOW 1500", pattern(2 << 20, 2)).await });
    sleep(Duration::from_millis(100)).await;
    echo(session, pattern(4 << 20, 3)).await?;
    let fast = begun.elapsed();
    unread.await??;
    let whole = begun.elapsed();
    if fast > Duration::from_millis(1400) {
        return Err(format!("the echo was held up: {fast:?}").into());
    }
    if whole < Duration::from_millis(1500) {
        return Err("the slow stream was not slow".into());
    }
    Ok(format!(
        "(fast {} ms, slow {} ms)",
        fast.as_millis(),
        whole.as_millis()
    ))
}

async fn goaway(session: &Mux) -> Result<String, Failure> {
    let mut old = open(session, "ECHO").await?;
    let line = ask(session, "GOAWAY")
        .await
        .unwrap_or_else(|_| "answer lost".into());
    if line == "CANT" {
        return Ok("n/a".into());
    }
    sleep(Duration::from_millis(400)).await;
    let Err(opened) = session.open().await else {
        return Err("open succeeded after a go-away".into());
    };
    let alive = timeout(Duration::from_secs(3), async {
        old.write_all(b"still").await?;
        let mut back = [0; 5];
        old.read_exact(&mut back).await?;
        old.shutdown().await
    })
    .await;
    let old = if matches!(alive, Ok(Ok(()))) {
        "alive"
    } else {
        "gone"
    };
    Ok(format!("({line}; open: {opened}; old stream {old})"))
}
