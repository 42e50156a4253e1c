//! A client that is gone altogether is missed, though it has ended its side before and its service says nothing: what its
//! connection held is free again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::node::{Access, Call, Node, NodeConfig};
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

mod common;
use common::{PATIENCE, Place, Server, finish, text};

/// As many as may be open at once in one session (docs/HOSTILE.md).
const ALL: usize = 256;

/// A backend that has a thread for each connection; what those tell.
fn backend<T: Send + 'static>(each: fn(TcpStream, Sender<T>)) -> (String, Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (sender, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || each(stream, sender));
        }
    });
    (format!("tcp:{at}"), heard)
}

/// A backend that reads and says nothing; what each connection brought, when its end comes.
fn silent() -> (String, Receiver<Vec<u8>>) {
    backend(|mut stream, sender| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = sender.send(all);
        thread::sleep(PATIENCE * 10);
    })
}

fn forward(place: &Place, server: &Server, listen: &str) -> Server {
    let (at, id) = (server.address(), server.id());
    let local = format!("{listen}=s");
    Server::start(place, &["forward", "--expect", &id, "-L", &local, &at])
}

fn serve(place: &Place, service: &str) -> Server {
    let service = format!("s={service}");
    let words = ["tcp:127.0.0.1:0", "--allow", "any", "--service", &service];
    place.serve(&words)
}

#[test]
fn clients_that_ended_their_side_and_were_reset_free_their_places() {
    let place = Place::new();
    let (backend, heard) = silent();
    let server = serve(&place, &backend);
    let forward = forward(&place, &server, "tcp:127.0.0.1:0");
    let at = forward.address().replace("tcp:", "");
    let mut gone = Vec::new();
    for _ in 0..ALL {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.write_all(b"x").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        gone.push(stream);
    }
    for _ in 0..ALL {
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"x");
    }
    for stream in gone {
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    let mut last = TcpStream::connect(&at).unwrap();
    last.write_all(b"last").unwrap();
    last.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"last");
}

#[test]
fn clients_that_close_a_unix_socket_free_their_places_and_all_of_their_bytes_arrive() {
    let place = Place::new();
    let (backend, heard) = silent();
    let server = serve(&place, &backend);
    let path = place.text("f.sock");
    let forward = forward(&place, &server, &format!("unix:{path}"));
    for _ in 0..ALL {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"all of it").unwrap();
    }
    for _ in 0..ALL {
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"all of it");
    }
    UnixStream::connect(&path)
        .unwrap()
        .write_all(b"last")
        .unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"last");
    forward.signal("TERM");
    let said = forward.finish().1;
    assert!(!said.contains("lost"), "{said}");
}

/// Waits until a process is gone.
#[track_caller]
fn wait_for_end(pid: &str) {
    let start = Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        // What it wrote may wait for 30 s at each end.
        assert!(
            start.elapsed() < 3 * PATIENCE,
            "process {pid} is still there"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a forwarded client of a command that tells its number and then takes no notice of anything.
fn at_a_command(command: &str) -> (Place, Server, Server, TcpStream, String) {
    let place = Place::new();
    let server = serve(&place, command);
    let forward = forward(&place, &server, "tcp:127.0.0.1:0");
    let at = forward.address().replace("tcp:", "");
    let mut client = TcpStream::connect(at).unwrap();
    let mut number = Vec::new();
    while number.last() != Some(&b'\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        number.extend(byte);
    }
    let number = text(&number).trim().to_owned();
    (place, server, forward, client, number)
}

#[test]
fn the_process_behind_a_client_that_ended_its_side_and_is_gone_ends_too() {
    let (_place, _server, _forward, client, number) =
        at_a_command("exec:sh -c 'echo $$; exec sleep 1000'");
    client.shutdown(Shutdown::Write).unwrap();
    // Its end is known by now, or soon; a reset on its heels would be the same to it.
    thread::sleep(Duration::from_millis(300));
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for_end(&number);
}

#[test]
fn the_process_behind_a_client_that_dies_while_nothing_is_taken_ends_too() {
    let (_place, _server, _forward, mut client, number) =
        at_a_command("exec:sh -c 'echo $$; exec sleep 1000'");
    client
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // Until all on the way is full.
    let zeros = vec![0; 64 * 1024];
    while client.write(&zeros).is_ok() {}
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for_end(&number);
}

#[test]
fn a_reader_of_standard_output_that_leaves_ends_connect_while_its_service_is_silent() {
    let place = Place::new();
    let server = serve(&place, "exec:sh -c 'echo one; exec sleep 1000'");
    let (at, id) = (server.address(), server.id());
    let mut connect = place.cepa(&["connect", "--expect", &id, &at, "s"]);
    // Its input stays open and says nothing.
    let mut connect = connect.stdin(Stdio::piped()).spawn().unwrap();
    let input = connect.stdin.take();
    let mut output = connect.stdout.take().unwrap();
    let mut line = [0; 4];
    output.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"one\n");
    drop(output);
    let ended = finish(connect);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    drop(input);
}

#[test]
fn a_reader_of_standard_output_that_leaves_ends_an_endless_input_too() {
    let place = Place::new();
    let server = serve(&place, "exec:cat");
    let (at, id) = (server.address(), server.id());
    let mut connect = place.cepa(&["connect", "--expect", &id, &at, "s"]);
    let mut connect = connect.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = connect.stdin.take().unwrap();
    let endless = thread::spawn(move || while input.write_all(&[b'y'; 4096]).is_ok() {});
    let mut output = connect.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    drop(output);
    let ended = finish(connect);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(text(&ended.stderr), "");
    endless.join().unwrap();
}

/// What a service has got, told once it has all.
fn slow_reader(runtime: &Runtime) -> (Node, String, Receiver<usize>) {
    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
    let (sender, got) = channel();
    let (node, at) = runtime.block_on(async {
        let node = Node::new(NodeConfig::new(identity, Arc::new(AcceptAny)));
        let serve = move |call: Call| {
            let sender = sender.clone();
            async move {
                let mut stream = call.accept().await.unwrap();
                // It has nothing to say, and reads 32 KiB a second.
                stream.shutdown().await.unwrap();
                let (mut all, mut some) = (0, vec![0; 32 << 10]);
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    match stream.read_exact(&mut some).await {
                        Ok(n) => all += n,
                        Err(_) => break,
                    }
                }
                sender.send(all).unwrap();
            }
        };
        node.serve("slow", Access::Anyone, serve).unwrap();
        let at = node
            .listen(&"tcp:127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        (node, at)
    });
    let address = format!("cepa://{}@{at}/slow", node.id());
    (node, address, got)
}

#[test]
fn connect_ends_with_0_only_once_all_of_its_input_has_left() {
    const ALL_OF_IT: usize = 512 << 10;
    let place = Place::new();
    let runtime = Runtime::new().unwrap();
    let (_node, address, got) = slow_reader(&runtime);
    let mut connect = place.cepa(&["connect", "--no-status", &address]);
    let mut connect = connect.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = connect.stdin.take().unwrap();
    input.write_all(&vec![7; ALL_OF_IT]).unwrap();
    drop(input);
    let ended = finish(connect);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(got.recv_timeout(PATIENCE).unwrap(), ALL_OF_IT);
}

/// What it has said is more than is read ahead, or its end was read: reading does not tell of its leaving.
#[cfg(target_os = "linux")]
fn descriptors(pid: u32) -> usize {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd"));
    all.unwrap().count()
}

/// Until there are no more than so many.
#[cfg(target_os = "linux")]
fn wait_for_descriptors(pid: u32, most: usize) {
    let began = Instant::now();
    while descriptors(pid) > most {
        assert!(began.elapsed() < PATIENCE, "they are still there");
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn clients_that_abort_while_their_echo_waits_for_them_free_their_places() {
    let place = Place::new();
    let server = serve(&place, "echo:");
    let forward = forward(&place, &server, "tcp:127.0.0.1:0");
    let at = forward.address().replace("tcp:", "");
    let (pid, before) = (forward.pid(), descriptors(forward.pid()));
    for reset in [true, false].repeat(4) {
        let mut stream = TcpStream::connect(&at).unwrap();
        let full = Duration::from_millis(500);
        stream.set_write_timeout(Some(full)).unwrap();
        // Until everything on the way is full.
        while stream.write_all(&[b'y'; 1 << 14]).is_ok() {}
        if reset {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    }
    wait_for_descriptors(pid, before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_resets_while_its_service_waits_for_room_is_missed() {
    let place = Place::new();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("s=tcp:{}", backend.local_addr().unwrap());
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--allow",
        "any",
        "--service",
        &service,
        "--connections-a-session",
        "1",
    ]);
    let mut forward = forward(&place, &server, "tcp:127.0.0.1:0");
    let at = forward.address().replace("tcp:", "");
    let said = |bytes: &[u8], ends: bool| {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.write_all(bytes).unwrap();
        if ends {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        stream
    };
    let first = said(b"first", false);
    // It is served, and what follows waits behind it.
    let (mut served, _) = backend.accept().unwrap();
    served.read_exact(&mut [0; 5]).unwrap();
    let pid = forward.pid();
    let before = descriptors(pid);
    let left = [said(&[b'x'; 4096], false), said(b"y", true)];
    forward.wait_for("a connection waits");
    assert!(descriptors(pid) > before);
    for stream in left {
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    wait_for_descriptors(pid, before);
    // Nothing is opened for them, and whoever comes behind them is next.
    let _last = said(b"last", true);
    drop((first, served));
    let (mut served, _) = backend.accept().unwrap();
    let mut heard = Vec::new();
    served.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"last");
}

/// A backend that talks for ever; how much of that a connection took, once it takes no more.
fn endless() -> (String, Receiver<u64>) {
    backend(|mut stream, sender| {
        let (piece, mut all) = ([b'y'; 1 << 14], 0);
        while let Ok(n) = stream.write(&piece) {
            all += n as u64;
        }
        let _ = sender.send(all);
    })
}

/// More than all windows and buffers on the way hold, and less than goes through in the time that a service is given to end.
const ON_THE_WAY: u64 = 100 << 20;

#[test]
fn a_service_that_talks_for_ever_is_cut_soon_once_nobody_takes_that() {
    let place = Place::new();
    let (backend, heard) = endless();
    let server = serve(&place, &backend);
    let forward = forward(&place, &server, "tcp:127.0.0.1:0");
    let at = forward.address().replace("tcp:", "");
    let mut client = TcpStream::connect(&at).unwrap();
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_exact(&mut [0; 1 << 14]).unwrap();
    drop(client);
    let taken = heard.recv_timeout(PATIENCE).unwrap();
    assert!(
        taken < ON_THE_WAY,
        "{taken} bytes behind a client that has left"
    );
}

#[test]
fn a_service_that_talks_for_ever_is_cut_soon_behind_the_reader_of_standard_output() {
    let place = Place::new();
    let (backend, heard) = endless();
    let server = serve(&place, &backend);
    let mut connect = place
        .cepa(&["connect", "--expect", &server.id(), &server.address(), "s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = connect.stdout.take().unwrap();
    output.read_exact(&mut [0; 1 << 14]).unwrap();
    drop(output);
    let taken = heard.recv_timeout(PATIENCE).unwrap();
    assert!(
        taken < ON_THE_WAY,
        "{taken} bytes behind a reader that has left"
    );
    assert!(finish(connect).status.success());
}
