//! Serial lines and ptys: who is there, what is left over, and what becomes of the link.
#![cfg(feature = "serial")]
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cepa_transports::{Endpoint, Listener, Remote, Stream, TransportErrorKind, dial, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Long enough to see that nothing happens; a test that waits for something uses a guard instead.
const NOTHING: Duration = Duration::from_millis(100);
const GUARD: Duration = Duration::from_secs(60);

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("line");
        Self { _dir: dir, path }
    }

    fn pty(&self) -> Endpoint {
        endpoint(&format!("pty:{}", self.path.display()))
    }

    fn serial(&self) -> Endpoint {
        endpoint(&format!("serial:{},baud=921600", self.path.display()))
    }

    async fn dial_serial(&self) -> Stream {
        dial(&self.serial()).await.unwrap()
    }
}

async fn accept(listener: &mut Listener) -> Stream {
    timeout(GUARD, listener.accept())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

async fn says_that_it_is_gone(listener: &mut Listener) {
    let gone = timeout(GUARD, listener.accept())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(
            gone.kind(),
            TransportErrorKind::Lost | TransportErrorKind::NotFound
        ),
        "{gone}"
    );
}

async fn expect(stream: &mut Stream, text: &str) {
    let mut buf = vec![0; text.len()];
    timeout(GUARD, stream.read_exact(&mut buf))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&buf), text);
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_symlink())
}

#[tokio::test]
async fn the_link_comes_and_goes() {
    let place = Place::new();
    let listener = listen(&place.pty()).await.unwrap();
    assert!(is_link(&place.path));
    drop(listener);
    assert!(!is_link(&place.path));
    let stream = dial(&place.pty()).await.unwrap();
    assert_eq!(stream.remote(), &Remote::Line(place.path.clone()));
    assert!(is_link(&place.path));
    drop(stream);
    assert!(!is_link(&place.path));
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_replaced_and_a_foreign_one_left() {
    let place = Place::new();
    std::os::unix::fs::symlink("/dev/pts/no-such-pty", &place.path).unwrap();
    let listener = listen(&place.pty()).await.unwrap();
    assert!(place.path.exists());
    // Another one took the place: it is not ours to remove.
    std::fs::remove_file(&place.path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &place.path).unwrap();
    drop(listener);
    assert_eq!(
        std::fs::read_link(&place.path).unwrap(),
        Path::new("/dev/null")
    );
}

#[tokio::test]
async fn a_pty_listener_waits_until_somebody_opens_the_other_end() {
    let place = Place::new();
    let mut listener = listen(&place.pty()).await.unwrap();
    assert!(timeout(NOTHING, listener.accept()).await.is_err());
    // The one who listens may speak first.
    let mut serial = place.dial_serial().await;
    let mut pty = accept(&mut listener).await;
    pty.write_all(b"welcome").await.unwrap();
    expect(&mut serial, "welcome").await;
}

#[tokio::test]
async fn a_pty_sees_the_end_after_the_last_byte_and_the_next_peer_is_a_new_stream() {
    let place = Place::new();
    let mut listener = listen(&place.pty()).await.unwrap();
    for round in 0..3 {
        let mut serial = place.dial_serial().await;
        let mut pty = accept(&mut listener).await;
        // One stream at a time.
        assert!(
            timeout(NOTHING, listener.accept()).await.is_err(),
            "round {round}"
        );
        pty.write_all(b"never read").await.unwrap();
        serial.write_all(b"last words").await.unwrap();
        drop(serial);
        let mut text = String::new();
        timeout(GUARD, pty.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(text, "last words");
        assert_eq!(pty.read(&mut [0; 8]).await.unwrap(), 0, "and again");
        let late = pty.write_all(b"too late").await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    }
    // What the first peers did not read, and what came too late, is not for the next.
    let mut serial = place.dial_serial().await;
    let mut pty = accept(&mut listener).await;
    pty.write_all(b"new").await.unwrap();
    expect(&mut serial, "new").await;
}

#[tokio::test]
async fn a_peer_that_never_left_is_a_new_stream_when_it_speaks_again() {
    let place = Place::new();
    let mut listener = listen(&place.pty()).await.unwrap();
    let mut serial = place.dial_serial().await;
    let mut pty = accept(&mut listener).await;
    serial.write_all(b"first").await.unwrap();
    expect(&mut pty, "first").await;
    drop(pty);
    assert!(timeout(NOTHING, listener.accept()).await.is_err());
    serial.write_all(b"again").await.unwrap();
    let mut pty = accept(&mut listener).await;
    expect(&mut pty, "again").await;
}

#[tokio::test]
async fn a_dialled_pty_waits_for_its_peer() {
    let place = Place::new();
    let mut pty = dial(&place.pty()).await.unwrap();
    let mut buf = [0; 8];
    assert!(
        timeout(NOTHING, pty.read(&mut buf)).await.is_err(),
        "no one there is no end"
    );
    pty.write_all(b"early").await.unwrap();
    let mut serial = place.dial_serial().await;
    expect(&mut serial, "early").await;
    serial.write_all(b"there").await.unwrap();
    expect(&mut pty, "there").await;
    drop(serial);
    assert_eq!(
        timeout(GUARD, pty.read(&mut buf)).await.unwrap().unwrap(),
        0
    );
}

#[tokio::test]
async fn closing_a_pty_loses_nothing_that_was_written() {
    let place = Place::new();
    let mut pty = dial(&place.pty()).await.unwrap();
    let mut serial = place.dial_serial().await;
    let data = vec![5; 20_000];
    let all = data.clone();
    let closing = tokio::spawn(async move {
        pty.write_all(&all).await.unwrap();
        pty.shutdown().await.unwrap();
    });
    // A slow reader.
    let mut got = Vec::new();
    while got.len() < data.len() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut buf = [0; 500];
        let n = timeout(GUARD, serial.read(&mut buf))
            .await
            .unwrap()
            .unwrap();
        got.extend_from_slice(&buf[..n]);
    }
    assert!(got == data);
    closing.await.unwrap();
}

#[tokio::test]
async fn a_line_that_hangs_up_is_an_error_and_stays_one() {
    let place = Place::new();
    let mut listener = listen(&place.pty()).await.unwrap();
    let mut serial = place.dial_serial().await;
    drop(accept(&mut listener).await);
    drop(listener);
    for _ in 0..2 {
        let error = timeout(GUARD, serial.read(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(error.to_string().contains("hung up"), "{error}");
        assert_eq!(
            serial.write(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test]
async fn a_serial_listener_waits_for_the_first_byte_and_keeps_it() {
    let place = Place::new();
    let mut pty = dial(&place.pty()).await.unwrap();
    let mut listener = listen(&place.serial()).await.unwrap();
    for round in ["first", "again"] {
        assert!(timeout(NOTHING, listener.accept()).await.is_err());
        pty.write_all(round.as_bytes()).await.unwrap();
        let mut serial = accept(&mut listener).await;
        assert_eq!(serial.remote(), &Remote::Line(place.path.clone()));
        expect(&mut serial, round).await;
        serial.write_all(b"answer").await.unwrap();
        expect(&mut pty, "answer").await;
        // The device is closed for a moment between two streams; that must not end the pty's side.
        let held = dial(&endpoint(&format!(
            "serial:{},exclusive=no",
            place.path.display()
        )))
        .await;
        drop(serial);
        drop(held);
        if round == "first" {
            pty = {
                drop(pty);
                says_that_it_is_gone(&mut listener).await;
                dial(&place.pty()).await.unwrap()
            };
        }
    }
}

#[tokio::test]
async fn a_line_is_locked_for_one_program() {
    let place = Place::new();
    let _pty = dial(&place.pty()).await.unwrap();
    let serial = place.dial_serial().await;
    let busy = dial(&place.serial()).await.unwrap_err();
    assert_eq!(busy.kind(), TransportErrorKind::AddressInUse, "{busy}");
    assert!(
        busy.to_string().contains("another program holds it"),
        "{busy}"
    );
    // What is advised never leads to two programs on one line.
    assert!(!busy.to_string().contains("exclusive=no"), "{busy}");
    // Others that lock by flock see it too (minicom, picocom, screen of late).
    let other = std::fs::File::open(&place.path);
    if let Ok(other) = other {
        let lock = rustix::fs::FlockOperation::NonBlockingLockShared;
        assert_eq!(
            rustix::fs::flock(&other, lock),
            Err(rustix::io::Errno::WOULDBLOCK)
        );
    }
    drop(serial);
    drop(place.dial_serial().await);
}

/// Whether closing the port hangs up.
fn hangs_up(path: &Path) -> bool {
    let port = std::fs::File::open(path).unwrap();
    let mode = rustix::termios::tcgetattr(port).unwrap();
    mode.control_modes
        .contains(rustix::termios::ControlModes::HUPCL)
}

#[tokio::test]
async fn modem_lines_are_kept_or_set_and_a_pty_that_has_none_is_fine() {
    let place = Place::new();
    let _pty = dial(&place.pty()).await.unwrap();
    let held = std::fs::File::open(&place.path).unwrap();
    let mut mode = rustix::termios::tcgetattr(&held).unwrap();
    mode.control_modes
        .insert(rustix::termios::ControlModes::HUPCL);
    rustix::termios::tcsetattr(&held, rustix::termios::OptionalActions::Now, &mode).unwrap();
    let path = place.path.display();
    for (options, keeps) in [
        ("dtr=on,rts=off", false),
        ("dtr=off,rts=on", false),
        ("dtr=keep", true),
    ] {
        let address = endpoint(&format!("serial:{path},{options},exclusive=no"));
        let mut serial = dial(&address).await.unwrap();
        assert_eq!(hangs_up(&place.path), !keeps, "{options}");
        serial.write_all(b"x").await.unwrap();
    }
}

#[tokio::test]
async fn a_device_without_rs485_is_used_as_it_is_and_says_so() {
    let place = Place::new();
    let mut pty = dial(&place.pty()).await.unwrap();
    let path = place.path.display();
    for (options, reported) in [
        ("rs485=on,rts-before=1", true),
        ("rs485=on,dtr=on", true),
        ("rs485=on,exclusive=no", true),
        // Off is what it is already.
        ("rs485=off", false),
        ("rs485=keep", false),
    ] {
        let address = endpoint(&format!("serial:{path},{options}"));
        let mut serial = dial(&address).await.unwrap();
        let remarks = serial.remarks();
        assert_eq!(
            remarks.len(),
            usize::from(reported),
            "{options}: {remarks:?}"
        );
        if reported {
            assert!(
                remarks[0].starts_with(&format!("{address}: ")),
                "{remarks:?}"
            );
            assert!(remarks[0].contains("RS-485 is unsupported"), "{remarks:?}");
        }
        serial.write_all(b"used").await.unwrap();
        expect(&mut pty, "used").await;
    }
    // A listener tells it before anybody has come.
    let address = endpoint(&format!("serial:{path},rs485=on"));
    let mut listener = listen(&address).await.unwrap();
    assert!(listener.remarks()[0].contains("RS-485 is unsupported"));
    pty.write_all(b"x").await.unwrap();
    let serial = accept(&mut listener).await;
    assert_eq!(serial.remarks(), listener.remarks());
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_unplugged_line_is_noticed_once_and_nothing_spins() {
    use std::sync::atomic::Ordering::SeqCst;
    let place = Place::new();
    let pty = dial(&place.pty()).await.unwrap();
    let mut serial = place.dial_serial().await;
    let wakes = std::sync::Arc::new(Wakes::default());
    let waker = std::task::Waker::from(std::sync::Arc::clone(&wakes));
    let mut cx = std::task::Context::from_waker(&waker);
    let mut bytes = [0; 8];
    let mut poll = |serial: &mut Stream| {
        let mut buf = tokio::io::ReadBuf::new(&mut bytes);
        tokio::io::AsyncRead::poll_read(std::pin::Pin::new(serial), &mut cx, &mut buf)
    };
    assert!(poll(&mut serial).is_pending());
    tokio::time::sleep(NOTHING).await;
    assert_eq!(wakes.0.load(SeqCst), 0);
    drop(pty);
    timeout(GUARD, async {
        while wakes.0.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    for _ in 0..2 {
        assert!(matches!(poll(&mut serial), std::task::Poll::Ready(Err(_))));
    }
    tokio::time::sleep(NOTHING).await;
    assert!(wakes.0.load(SeqCst) <= 2, "{}", wakes.0.load(SeqCst));
}

#[tokio::test]
async fn a_line_that_is_plugged_in_again_is_listened_on_again() {
    let place = Place::new();
    let pty = dial(&place.pty()).await.unwrap();
    let mut listener = listen(&place.serial()).await.unwrap();
    drop(pty);
    for _ in 0..2 {
        says_that_it_is_gone(&mut listener).await;
    }
    let mut pty = dial(&place.pty()).await.unwrap();
    let accepting = tokio::spawn(async move { accept(&mut listener).await });
    // A byte at a time, until the listener has looked again and found somebody.
    let mut serial = loop {
        pty.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        if accepting.is_finished() {
            break accepting.await.unwrap();
        }
    };
    expect(&mut serial, "x").await;
}
