//! `unix:PATH,framed`: who is behind a Unix socket tells a cut from an end, whatever was cut: the dialler killed, the substream
//! reset, the session lost. The frames are taken off and put on here by code that shares none with cepa.

mod common;

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Node, NodeConfig};
use common::{PATIENCE, Place, Server, finish, noise, text};
use tokio::io::AsyncWriteExt;

/// What is sent of an upload before it is cut.
const HALF: usize = 100_000;

fn frame(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&length.to_be_bytes(), data].concat()
}

/// Reads frames to the end frame: the data, and whether it came.
fn read_frames(stream: &mut UnixStream, mut heard: impl FnMut(usize)) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).is_err() {
            return (all, false);
        }
        let mut left = u32::from_be_bytes(length) as usize;
        assert!(left <= 1 << 20, "a frame of {left} bytes");
        if left == 0 {
            return (all, true);
        }
        while left > 0 {
            let mut part = vec![0; left];
            match stream.read(&mut part) {
                Ok(n @ 1..) => {
                    all.extend(&part[..n]);
                    left -= n;
                    heard(all.len());
                }
                _ => return (all, false),
            }
        }
    }
}

fn accept(listener: &UnixListener) -> UnixStream {
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn serve(place: &Place, service: &str) -> (Server, String) {
    let server = place.serve(&["tcp:127.0.0.1:0", "--allow", "any", "--service", service]);
    let at = format!("cepa://{}@{}", server.id(), server.address());
    (server, at)
}

#[test]
fn a_service_sees_the_end_frame_of_a_whole_upload_and_never_of_a_cut_one() {
    let place = Place::new();
    let path = place.path("up.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let service = format!("up=unix:{},framed", path.display());
    let elsewhere = Place::new();
    let (server, at) = serve(&elsewhere, &service);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let node =
        runtime.block_on(async { Node::new(NodeConfig::new(identity, Arc::new(AcceptAny))) });

    // Whole, and answered.
    let data = noise(3 << 20);
    let uploaded = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut stream = accept(&listener);
            let (got, ended) = read_frames(&mut stream, |_| ());
            stream
                .write_all(&[frame(b"got "), frame(b"it"), frame(b"")].concat())
                .unwrap();
            (got, ended)
        });
        let output = place.run_with(&["connect", &at, "up"], &data);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "got it");
        receiver.join().unwrap()
    });
    assert!(uploaded.0 == data && uploaded.1);

    let half = |cut: &mut dyn FnMut()| {
        let mut stream = accept(&listener);
        let (got, ended) = read_frames(&mut stream, |heard| {
            if heard == HALF {
                cut();
            }
        });
        assert_eq!(got.len(), HALF);
        ended
    };
    let mut ends = Vec::new();
    for _ in 0..5 {
        // The substream is reset.
        let address = format!("{at}/up").parse().unwrap();
        let mut far = runtime.block_on(node.open(&address)).unwrap();
        runtime.block_on(async {
            far.write_all(&vec![1; HALF]).await.unwrap();
            far.flush().await.unwrap();
        });
        ends.push(half(&mut || far.wire_mut().reset(7)));
    }
    for _ in 0..5 {
        // The session is lost.
        let mut child = place
            .cepa(&["connect", &at, "up"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&vec![1; HALF]).unwrap();
        ends.push(half(&mut || child.kill().unwrap()));
        child.wait().unwrap();
    }
    // The dialler of the socket is killed.
    let address = format!("{at}/up").parse().unwrap();
    let mut far = runtime.block_on(node.open(&address)).unwrap();
    runtime.block_on(async {
        far.write_all(&vec![1; HALF]).await.unwrap();
        far.flush().await.unwrap();
    });
    ends.push(half(&mut || server.signal("KILL")));
    assert_eq!(ends, [false; 11], "an end where there was none");
}

/// The far end of a forwarder: what came, and how it ended.
fn heard(listener: &TcpListener, open: &Sender<()>) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut stream = listener.accept().unwrap().0;
    open.send(()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => {
            stream.write_all(b"thanks").unwrap();
            (got, None)
        }
        Err(e) => (got, Some(e.kind())),
    }
}

#[test]
fn a_client_of_a_forwarder_that_closes_without_the_end_frame_is_cut_at_the_far_end() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("up=tcp:{}", listener.local_addr().unwrap());
    let elsewhere = Place::new();
    let (_server, at) = serve(&elsewhere, &service);
    let path = place.path("near.sock");
    let local = format!("unix:{},framed=up", path.display());
    let forward = Server::start(&place, &["forward", &at, "-L", &local]);
    let address = forward.address();
    assert_eq!(address, format!("unix:{},framed", path.display()));
    let reset = Some(io::ErrorKind::ConnectionReset);
    let (open, opened) = channel();
    let client = |sent: &[u8]| {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(sent).unwrap();
        client
    };
    let whole = [frame(b"who"), frame(b"le"), frame(b"")].concat();
    for (sent, ends) in [
        (whole.as_slice(), true),
        // No end frame, half a frame, half a length.
        (&whole[..whole.len() - 4], false),
        (&whole[..9], false),
        (&whole[..whole.len() - 1], false),
        // No frames at all: too long, and text.
        (b"\xff\xff\xff\xffxyz", false),
        (b"GET / HTTP/1.1\r\n\r\n", false),
    ] {
        let (got, end) = thread::scope(|scope| {
            let far = scope.spawn(|| heard(&listener, &open));
            let mut client = client(&sent[..2]);
            opened.recv_timeout(PATIENCE).unwrap();
            client.write_all(&sent[2..]).unwrap();
            if ends {
                // Its end is the end frame alone.
                assert_eq!(read_frames(&mut client, |_| ()), (b"thanks".to_vec(), true));
            } else if sent.starts_with(b"\0") {
                drop(client);
            } else {
                // It is cut itself.
                assert_eq!(read_frames(&mut client, |_| ()), (Vec::new(), false));
            }
            far.join().unwrap()
        });
        assert_eq!(end, if ends { None } else { reset }, "{sent:?}");
        assert!(b"whole".starts_with(got.as_slice()), "{got:?}");
        assert!(!ends || got == b"whole");
    }
    // The tool is a client too.
    let (got, end) = thread::scope(|scope| {
        let far = scope.spawn(|| heard(&listener, &open));
        let output = place.run_with(&["pipe", "stdio:", &address], b"by the tool");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "thanks");
        far.join().unwrap()
    });
    assert_eq!((got.as_slice(), end), (b"by the tool".as_slice(), None));
}

#[test]
fn pipe_listens_and_kills_the_command_of_a_cut_upload() {
    let place = Place::new();
    let path = place.path("up.sock");
    let address = format!("unix:{},framed", path.display());
    // Each has a folder of its own, by its first line.
    let script = place.path("receive");
    let lines = "read name\nmkdir $name\ncat >$name/new\nmv $name/new $name/done\necho kept\n";
    std::fs::write(&script, lines).unwrap();
    let dir = place.path("");
    let command = format!("exec:sh {},dir={}", script.display(), dir.display());
    let mut receiver = Server::start(&place, &["pipe", "--listen", &address, &command]);
    let elsewhere = Place::new();
    let (_server, at) = serve(&elsewhere, &format!("up={address}"));

    let output = place.run_with(&["connect", &at, "up"], b"whole\nall of it");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "kept\n");
    let kept = std::fs::read_to_string(place.path("whole/done")).unwrap();
    assert_eq!(kept, "all of it");

    for name in ["a", "b", "c"] {
        let mut child = place
            .cepa(&["connect", &at, "up"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        write!(stdin, "{name}\nhalf of").unwrap();
        let start = Instant::now();
        while std::fs::read(place.path(&format!("{name}/new"))).ok() != Some(b"half of".to_vec()) {
            assert!(start.elapsed() < PATIENCE, "{name}: it does not arrive");
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        receiver.wait_for("cut: it closed without the frame that ends it");
        assert!(!finish(child).status.success());
        assert!(!place.path(&format!("{name}/done")).exists(), "{name}");
        // It is not told twice a minute: each has one of its own.
        drop(receiver);
        receiver = Server::start(&place, &["pipe", "--listen", &address, &command]);
    }
    // It ends with a signal, and its socket goes.
    receiver.signal("TERM");
    let (status, said) = receiver.finish();
    assert_eq!(status, Some(0), "{said}");
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_listened_on_or_joined_again_is_refused() {
    let place = Place::new();
    for (words, why) in [
        (["exec:cat", "exec:cat"], "use tcp: or unix:"),
        (["tls+tcp:127.0.0.1:0", "exec:cat"], "without layers"),
        (["tcp:127.0.0.1:0", "stdio:"], "opened only once"),
        (["unix:/x,framed=maybe", "exec:cat"], "framed=yes|no"),
    ] {
        let said = place.fails(&["pipe", "--listen", words[0], words[1]], 2);
        assert!(said.contains(why), "{said}");
    }
}
