//! Every stream type of this crate passes the conformance suite, and so does every middleware over it.
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use cepa_transports::meter::{Meter, Metered};
use cepa_transports::testkit::{Chopped, Cuts, Options, check_streams};
use cepa_transports::throttle::{Throttled, TokenBucket};
use cepa_transports::{Child, Endpoint, Listener, Stream, dial, listen, memory};
#[cfg(feature = "wss")]
use sha2::Digest as _;
#[cfg(feature = "rfc2217")]
use tokio::io::AsyncReadExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tokio::net::unix::pipe;

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

async fn pair_at(listener: &mut Listener) -> (Stream, Stream) {
    let at = listener.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    (dialled.unwrap(), accepted.unwrap().unwrap())
}

/// Runs the suite on pairs of a dialled stream and the one that was accepted for it.
async fn check_listener(address: &str) {
    let mut listener = listen(&endpoint(address)).await.unwrap();
    // Made in advance, because a factory's future cannot borrow the listener: two rounds of 12 checks.
    let mut pairs = Vec::new();
    for _ in 0..24 {
        pairs.push(pair_at(&mut listener).await);
    }
    let result = check_streams(&Options::default(), || {
        let pair = pairs.pop().unwrap();
        async move { pair }
    })
    .await;
    result.unwrap_or_else(|e| panic!("{address}: {e}"));
}

#[tokio::test]
async fn memory_pairs() {
    check_streams(&Options::default(), || async { memory::pair() })
        .await
        .unwrap();
}

#[tokio::test]
async fn memory_listener() {
    check_listener("memory:conformance").await;
}

#[tokio::test]
async fn tcp_v4() {
    check_listener("tcp:127.0.0.1:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_on_two_threads() {
    check_listener("tcp:127.0.0.1:0").await;
}

#[cfg(feature = "ws")]
#[tokio::test]
async fn ws() {
    check_listener("ws:127.0.0.1:0/cepa%3Fa=b").await;
}

#[cfg(feature = "ws")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ws_on_two_threads() {
    check_listener("ws:127.0.0.1:0").await;
}

#[cfg(feature = "wss")]
#[tokio::test]
async fn wss() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["front.example".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let pin = sha2::Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(
        &made.signing_key,
    ));
    check_listener(&format!(
        "wss:127.0.0.1:0/cepa,pin=sha256//{},cert={},key={}",
        data_encoding::BASE64.encode(&pin),
        cert.display(),
        key.display()
    ))
    .await;
}

#[cfg(feature = "quic")]
#[tokio::test]
async fn quic() {
    check_listener("quic:127.0.0.1:0").await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_on_two_threads() {
    check_listener("quic:[::1]:0").await;
}

#[tokio::test]
async fn unix() {
    let dir = tempfile::tempdir().unwrap();
    check_listener(&format!("unix:{}/socket", dir.path().display())).await;
}

#[tokio::test]
async fn framed() {
    let dir = tempfile::tempdir().unwrap();
    check_listener(&format!("unix:{}/socket,framed", dir.path().display())).await;
    // Over what takes and gives few bytes at once.
    check_streams(&Options::default(), || async {
        let (one, other) = duplex(700);
        (Stream::from(one).framed(), Stream::from(other).framed())
    })
    .await
    .unwrap();
}

type Children = Mutex<Vec<Child>>;

/// What has its input go into one named pipe, and its output come from another.
fn through_pipes(into: &Path, from: &Path) -> String {
    // "up" is opened first: once "down" can be opened, the command has both, and nobody is left waiting
    // in an open for an end that was dropped meanwhile.
    let (into, from) = (into.display(), from.display());
    format!("exec 3>{into}; cat <{from} 3>&- & exec cat >&3 3>&-")
}

/// A command whose other side can be held.
async fn exec_pair(dir: &Path, n: u32, children: &Children) -> (Stream, Stream) {
    let (up, down) = (dir.join(format!("up{n}")), dir.join(format!("down{n}")));
    let command = format!("exec:sh -c '{}'", through_pipes(&up, &down));
    command_pair(&command, &up, &down, children).await
}

async fn command_pair(
    command: &str,
    up: &Path,
    down: &Path,
    children: &Children,
) -> (Stream, Stream) {
    for fifo in [up, down] {
        let made = tokio::process::Command::new("mkfifo")
            .arg(fifo)
            .status()
            .await
            .unwrap();
        assert!(made.success());
    }
    // Open before the command starts, which would wait for a reader otherwise.
    let receiver = pipe::OpenOptions::new().open_receiver(up).unwrap();
    let mut stream = dial(&endpoint(command)).await.unwrap();
    // Dropping the stream must not kill it before it has passed everything on.
    children.lock().unwrap().extend(stream.take_child());
    let sender = loop {
        match pipe::OpenOptions::new().open_sender(down) {
            Ok(sender) => break sender,
            // Nobody has it open for reading yet.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    };
    (
        stream,
        Stream::from_io(
            NamedPipes {
                receiver,
                sender: Some(sender),
            },
            "named pipes",
        ),
    )
}

/// tokio's pipe does not close on shutdown, only when it is dropped.
struct NamedPipes {
    receiver: pipe::Receiver,
    sender: Option<pipe::Sender>,
}

impl AsyncRead for NamedPipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiver).poll_read(cx, buf)
    }
}

impl AsyncWrite for NamedPipes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.sender {
            Some(sender) => Pin::new(sender).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender = None;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn metered_and_throttled() {
    let meter = Meter::new();
    let bucket = TokenBucket::new(200_000_000);
    let make = || {
        let (a, b) = memory::pair();
        let a = Metered::new(a, meter.clone());
        let a = Throttled::new(a)
            .with_read(bucket.clone())
            .with_write(bucket.clone());
        let b = Throttled::new(b).with_write(TokenBucket::new(50_000_000));
        async move { (a, b) }
    };
    check_streams(&Options::default(), make).await.unwrap();
    assert!(meter.bytes_in() > 1_300_000 && meter.bytes_out() > 1_300_000);
}

#[tokio::test]
async fn chopped() {
    let options = Options {
        volume: 100_000,
        ..Options::default()
    };
    for (seed, cuts) in [
        (1, Cuts::Fixed(1)),
        (2, Cuts::Random { max: 50 }),
        (3, Cuts::Listed(vec![1, 2, 1000, 3])),
    ] {
        let make = || {
            let (a, b) = duplex(1000);
            let cuts = cuts.clone();
            // Reads on the other side are cut too, and less evenly.
            async move {
                (
                    Chopped::new(a, cuts, seed),
                    Chopped::new(b, Cuts::Random { max: 9 }, seed),
                )
            }
        };
        check_streams(&options, make)
            .await
            .unwrap_or_else(|e| panic!("{cuts:?}: {e}"));
    }
}

#[tokio::test]
async fn exec() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    let children = Arc::new(Children::default());
    let make = || {
        n += 1;
        let (dir, children) = (dir.path().to_owned(), Arc::clone(&children));
        async move { exec_pair(&dir, n, &children).await }
    };
    check_streams(&Options::default(), make).await.unwrap();
}

/// Run by [`ssh`], with an `ssh` of its own in front of the system's.
#[tokio::test]
#[ignore = "run by the test `ssh`"]
async fn behind_an_ssh() {
    // Nothing to be done by itself.
    let Some(dir) = std::env::var_os("CEPA_TEST_SSH").map(std::path::PathBuf::from) else {
        return;
    };
    let mut n = 0;
    let children = Arc::new(Children::default());
    let make = || {
        n += 1;
        let (dir, children) = (dir.clone(), Arc::clone(&children));
        async move {
            let (up, down) = (dir.join(format!("up{n}")), dir.join(format!("down{n}")));
            command_pair(
                &format!("ssh:{n},service=db=unix:/x"),
                &up,
                &down,
                &children,
            )
            .await
        }
    };
    check_streams(&Options::default(), make).await.unwrap();
}

#[test]
fn ssh() {
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up$host"), dir.path().join("down$host"));
    // It has the host before the far end's command, which is the last word.
    let script = format!(
        "#!/bin/sh\nfor word; do host=$last last=$word; done\n\
         [ \"$last\" = 'cepa serve stdio: --allow any --service=db=unix:/x' ] || exit 9\n{}\n",
        through_pipes(&up, &down)
    );
    let program = dir.path().join("ssh");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "behind_an_ssh"])
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env("CEPA_TEST_SSH", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// A client's line and the server's: its shutdown tells nothing, and what it reads ends with an error.
#[cfg(feature = "rfc2217")]
#[tokio::test]
async fn rfc2217() {
    let mut listener = listen(&endpoint("rfc2217:127.0.0.1:0,baud=9600"))
        .await
        .unwrap();
    let mut pairs = Vec::new();
    for _ in 0..24 {
        let at = listener.endpoint().clone();
        let server = async {
            let opened = tokio::spawn(async move { dial(&at).await.unwrap() });
            // It answers only as long as it is read.
            let mut stream = listener.accept().await.unwrap().unwrap();
            let mut none = [0; 1];
            loop {
                tokio::select! {
                    biased;
                    read = stream.read(&mut none) => panic!("{read:?}"),
                    () = tokio::task::yield_now() => {}
                }
                if opened.is_finished() {
                    break;
                }
            }
            (opened.await.unwrap(), stream)
        };
        pairs.push(server.await);
    }
    let options = Options {
        half_close: false,
        ..Options::default()
    };
    let result = check_streams(&options, || {
        let pair = pairs.pop().unwrap();
        async move { pair }
    })
    .await;
    result.unwrap();
}

#[cfg(feature = "serial")]
mod lines {
    use super::*;

    fn line() -> Options {
        // A line has no end of file.
        Options {
            half_close: false,
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn pty_and_serial() {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        let make = || {
            n += 1;
            let path = dir.path().join(format!("line{n}"));
            async move {
                let pty = endpoint(&format!("pty:{}", path.display()));
                let serial = endpoint(&format!("serial:{}", path.display()));
                let mut listener = listen(&pty).await.unwrap();
                let (serial, pty) = tokio::join!(dial(&serial), listener.accept());
                (serial.unwrap(), pty.unwrap().unwrap())
            }
        };
        check_streams(&line(), make).await.unwrap();
    }

    #[tokio::test]
    async fn dialled_pty_and_serial() {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        let make = || {
            n += 1;
            let path = dir.path().join(format!("line{n}"));
            async move {
                let pty = dial(&endpoint(&format!("pty:{}", path.display())))
                    .await
                    .unwrap();
                let serial = endpoint(&format!("serial:{},exclusive=no", path.display()));
                (dial(&serial).await.unwrap(), pty)
            }
        };
        // The pty holds its own other end until the first byte has come.
        check_streams(
            &Options {
                notices_drop: false,
                ..line()
            },
            make,
        )
        .await
        .unwrap();
    }

    /// Two serial ends joined by the kernel's ptys and a copying task between, as a cable would.
    #[tokio::test]
    async fn serial_and_serial() {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        let make = || {
            n += 1;
            let path = |end| format!("{}/{end}{n}", dir.path().display());
            let (a, b) = (path("a"), path("b"));
            async move {
                let mut pty_a = dial(&endpoint(&format!("pty:{a}"))).await.unwrap();
                let mut pty_b = dial(&endpoint(&format!("pty:{b}"))).await.unwrap();
                tokio::spawn(
                    async move { tokio::io::copy_bidirectional(&mut pty_a, &mut pty_b).await },
                );
                let a = dial(&endpoint(&format!("serial:{a},baud=921600")))
                    .await
                    .unwrap();
                let b = dial(&endpoint(&format!("serial:{b},baud=921600")))
                    .await
                    .unwrap();
                (a, b)
            }
        };
        check_streams(
            &Options {
                notices_drop: false,
                ..line()
            },
            make,
        )
        .await
        .unwrap();
    }

    /// Two serial ports that something joins: a cable, or a simulator. They have to be named:
    /// `CEPA_TEST_LINES=/dev/ttyUSB0,/dev/ttyUSB1 cargo test -p cepa-transports --test conformance`
    #[tokio::test]
    async fn joined_lines() {
        let Ok(lines) = std::env::var("CEPA_TEST_LINES") else {
            eprintln!("SKIPPED: CEPA_TEST_LINES=PATH,PATH names no joined serial ports");
            return;
        };
        let (a, b) = lines.split_once(',').expect("CEPA_TEST_LINES=PATH,PATH");
        let options = Options {
            volume: 100_000,
            notices_drop: false,
            ..line()
        };
        let make = || {
            let open = |path| endpoint(&format!("serial:{path},baud=921600"));
            let (a, b) = (open(a), open(b));
            async move { (dial(&a).await.unwrap(), dial(&b).await.unwrap()) }
        };
        check_streams(&options, make).await.unwrap();
    }
}
