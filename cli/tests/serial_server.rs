//! Serial lines behind a serial server: ser2net, with a pty as its device, in its raw form and by RFC 2217; and the same with a small
//! telnet server of this test, which notes what is said of the port.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use common::desk::Desk;
use common::programs::{Running, have, ports, skipped};
use common::{PATIENCE, Place, finish, noise, sha256, text};

/// ser2net with these connections, each an accepter without its port, and a connector. Gives their ports.
fn ser2net<const N: usize>(
    place: &Place,
    program: &str,
    connections: &[(&str, String); N],
) -> (Running, [u16; N]) {
    let (ports, [ready]) = (ports::<N>(), ports::<1>());
    let mut config = String::new();
    for (n, ((accepter, connector), port)) in connections.iter().zip(ports).enumerate() {
        let _ = write!(
            config,
            "connection: &c{n}\n  accepter: {accepter},127.0.0.1,{port}\n  connector: {connector}\n"
        );
    }
    // Whoever asks whether it is there must not open a line.
    let _ = write!(
        config,
        "connection: &last\n  accepter: tcp,127.0.0.1,{ready}\n  connector: serialdev,/dev/null\n"
    );
    fs::write(place.path("ser2net.yaml"), config).unwrap();
    let words = ["-n", "-d", "-u", "-c", &place.text("ser2net.yaml")];
    let log = place.path("ser2net.log");
    let running = Running::start(Command::new(program).args(words), &log, ready);
    (running, ports)
}

/// The sum of some bytes by way of an address.
fn works(place: &Place, address: &str) {
    let data = noise(200_000);
    let words = ["connect", address, "up", "--trust", "any"];
    let mut child = place.cepa(&words).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let expected = sha256(&data);
    let writer = thread::spawn(move || input.write_all(&data));
    let output = finish(child);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{address}: {error}");
    assert_eq!(text(&output.stdout), expected);
    writer.join().unwrap().unwrap();
}

fn fails(place: &Place, address: &str, code: i32, words: &str) {
    let line = place.fails_quietly(&["connect", address, "up", "--trust", "any"], code);
    assert!(line.contains(words), "{address}: {line}");
}

#[test]
fn sessions_behind_ser2net() {
    let Some(program) = have("ser2net") else {
        return;
    };
    let place = Place::new();
    let (one, two) = (place.text("one"), place.text("two"));
    let serve = |line: &str| {
        let at = format!("pty:{line}");
        place.serve(&[&at, "--service", "up=exec:sha256sum", "--allow", "any"])
    };
    let _servers = [serve(&one), serve(&two)];
    let device = |path: &str| format!("serialdev,{path},9600n81,local");
    let (_ser2net, [rfc2217, raw, telnet, absent]) = ser2net(
        &place,
        &program,
        &[
            ("telnet(rfc2217),tcp", device(&one)),
            ("tcp", device(&two)),
            ("telnet,tcp", device(&two)),
            ("telnet(rfc2217),tcp", device(&place.text("absent"))),
        ],
    );
    let at = format!("rfc2217:127.0.0.1:{rfc2217},baud=115200");
    for _ in 0..2 {
        works(&place, &at);
        works(&place, &format!("mux+tls+link+tcp:127.0.0.1:{raw}"));
    }
    fails(
        &place,
        &format!("rfc2217:127.0.0.1:{telnet}"),
        2,
        "has no control of a serial port (RFC 2217); switch it on there",
    );
    fails(
        &place,
        &format!("rfc2217:127.0.0.1:{absent}"),
        5,
        "closed it and said \"Device open failure",
    );
    // For one at a time.
    let mut other = TcpStream::connect(("127.0.0.1", rfc2217)).unwrap();
    other.read_exact(&mut [0; 3]).unwrap();
    fails(
        &place,
        &at,
        5,
        "closed it and said \"Port already in use\"; check the device there",
    );
}

/// A telnet server with one port that echoes what comes, and tells what is said of the port.
fn telnet_server() -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (said, hears) = channel();
    thread::spawn(move || {
        // A stranger may come first: somebody else's client that looks for a server which had this port before.
        for stream in listener.incoming() {
            let said = said.clone();
            thread::spawn(move || answer(stream.unwrap(), &said));
        }
    });
    (port, hears)
}

fn answer(mut stream: TcpStream, said: &Sender<Vec<u8>>) {
    let willing = [255, 251, 0, 255, 253, 0, 255, 253, 44];
    // A character without a stop bit and a break; CTS and DSR.
    let state = [
        255, 250, 44, 106, 0x18, 255, 240, 255, 250, 44, 107, 0x30, 255, 240,
    ];
    if stream.write_all(&[&willing[..], &state].concat()).is_err() {
        return;
    }
    let reader = stream.try_clone().unwrap();
    let mut bytes = std::io::BufReader::new(reader)
        .bytes()
        .map_while(Result::ok);
    while let Some(byte) = bytes.next() {
        let answer = match byte {
            255 => match bytes.next() {
                Some(255) => vec![255, 255],
                Some(250) => {
                    let mut body = Vec::new();
                    loop {
                        match bytes.next() {
                            Some(255) if bytes.next() != Some(255) => break,
                            Some(byte) => body.push(byte),
                            None => return,
                        }
                    }
                    let _ = said.send(body[1..].to_vec());
                    let mut answer = vec![255, 250];
                    body[1] += 100;
                    answer.extend(
                        body.iter()
                            .flat_map(|b| vec![*b; 1 + usize::from(*b == 255)]),
                    );
                    answer.extend([255, 240]);
                    answer
                }
                // All that it is willing to has been said.
                Some(251..=254) => {
                    bytes.next();
                    continue;
                }
                _ => continue,
            },
            byte => vec![byte],
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

#[track_caller]
fn is_said(hears: &Receiver<Vec<u8>>, wanted: &[u8]) {
    let mut before = Vec::new();
    loop {
        match hears.recv_timeout(PATIENCE) {
            Ok(body) if body == wanted => return,
            Ok(body) => before.push(body),
            Err(e) => panic!("{e}: {wanted:?} was not said, but {before:?}"),
        }
    }
}

/// From a keyboard to the device: a console, the session, the service's line, the serial server.
fn break_reaches(place: &Place, line: &str, hears: &Receiver<Vec<u8>>) {
    let service = format!("uart={line}");
    let server = place.serve(&["tcp:127.0.0.1:0", "--service", &service, "--allow", "any"]);
    let at = server.address();
    let words = ["console", &at, "uart", "--trust", "any"];
    let mut desk = Desk::sit_down(place, &words, (24, 80));
    desk.until("connected to uart");
    is_said(hears, &[1, 0, 0, 0x25, 0x80]);
    desk.type_in("hello\r");
    desk.until("hello");
    desk.type_in("~B");
    is_said(hears, &[5, 5]);
    is_said(hears, &[5, 6]);
    for (key, says, body) in [
        ("~D", "DTR is off", [5, 9]),
        ("~D", "DTR is on", [5, 8]),
        ("~T", "RTS is off", [5, 12]),
    ] {
        desk.type_in(key);
        desk.until(says);
        is_said(hears, &body);
    }
    desk.type_in("more\r");
    desk.until("more");
    desk.type_in("~.");
    let (code, seen) = desk.leave();
    assert_eq!(code, Some(0), "{seen}");
}

#[test]
fn a_break_is_carried_to_the_line_behind_a_server() {
    let place = Place::new();
    let (port, hears) = telnet_server();
    break_reaches(
        &place,
        &format!("rfc2217:127.0.0.1:{port},baud=9600"),
        &hears,
    );
}

/// pyserial's client, which knows nothing of cepa, at a port that `forward` and `pipe` listen at. `None` where it can't be had.
fn pyserial(place: &Place, port: &str) -> Option<std::process::Output> {
    let script = r"
import serial, sys
url = 'rfc2217://127.0.0.1:%s?timeout=60' % sys.argv[1]
port = serial.serial_for_url(url, baudrate=9600, parity='E', timeout=60)
assert port.getCTS() and port.getDSR() and port.getCD()
port.baudrate = 57600
port.dtr = False
port.send_break(0.01)
port.reset_input_buffer()
data = bytes(range(256)) * 40
port.write(data)
back = b''
while len(back) < len(data):
    some = port.read(len(data) - len(back))
    assert some, len(back)
    back += some
assert back == data
port.close()
print('equal')
";
    let has_it = |python: &&str| {
        let mut asks = Command::new(python);
        let asks = asks.args(["-c", "import serial"]).stderr(Stdio::null());
        asks.status().is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_it) else {
        skipped("no python3 that has pyserial");
        return None;
    };
    fs::write(place.path("client.py"), script).unwrap();
    let mut python = Command::new(python);
    let python = python.arg(place.path("client.py")).arg(port);
    Some(finish(
        python
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    ))
}

fn port_of(address: &str) -> String {
    let port = address.split(':').nth(2).unwrap();
    port.split(',').next().unwrap().to_owned()
}

#[test]
fn pyserial_finds_a_line_where_forward_and_pipe_listen() {
    let place = Place::new();
    let line = place.text("line");
    let device = format!("pty:{line}");
    let mut device = place.cepa(&["pipe", &device, "exec:cat"]).spawn().unwrap();
    let start = std::time::Instant::now();
    while fs::symlink_metadata(&line).is_err() {
        assert!(start.elapsed() < PATIENCE, "no line");
        thread::sleep(std::time::Duration::from_millis(10));
    }
    let service = format!("uart=serial:{line}");
    let words = ["tcp:127.0.0.1:0", "--service", &service, "--allow", "any"];
    let server = place.serve(&words);
    let at = server.address();
    let words = [
        "forward",
        &at,
        "-L",
        "rfc2217:127.0.0.1:0=uart",
        "--trust",
        "any",
    ];
    let forward = common::Server::start(&place, &words);
    let Some(output) = pyserial(&place, &port_of(&forward.address())) else {
        let _ = (device.kill(), device.wait());
        return;
    };
    assert_eq!(text(&output.stdout), "equal\n", "{}", text(&output.stderr));
    drop((forward, server));
    let _ = (device.kill(), device.wait());
    let words = [
        "pipe",
        "--listen",
        "rfc2217:127.0.0.1:0,baud=9600",
        "exec:cat",
    ];
    let pipe = common::Server::start(&place, &words);
    for _ in 0..2 {
        let output = pyserial(&place, &port_of(&pipe.address())).unwrap();
        assert_eq!(text(&output.stdout), "equal\n", "{}", text(&output.stderr));
    }
}

/// A client that knows nothing of cepa, `pipe`, and the device: here one whose driver can tell, a line behind another serial server.
#[test]
fn a_clients_break_reaches_the_device_behind_pipe() {
    let place = Place::new();
    let (port, hears) = telnet_server();
    let device = format!("rfc2217:127.0.0.1:{port},baud=9600");
    let pipe = common::Server::start(
        &place,
        &["pipe", "--listen", "rfc2217:127.0.0.1:0", &device],
    );
    let mut client = TcpStream::connect((
        "127.0.0.1",
        port_of(&pipe.address()).parse::<u16>().unwrap(),
    ))
    .unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    is_said(&hears, &[1, 0, 0, 0x25, 0x80]);
    // WILL BINARY, DO BINARY, WILL COM-PORT; and bytes through the device and back, so that all is open.
    client
        .write_all(&[255, 251, 0, 255, 253, 0, 255, 251, 44])
        .unwrap();
    client.write_all(b"#").unwrap();
    let mut byte = [0; 1];
    while byte != *b"#" {
        client.read_exact(&mut byte).unwrap();
    }
    // As pyserial's send_break does, twice.
    for _ in 0..2 {
        client.write_all(&[255, 250, 44, 5, 5, 255, 240]).unwrap();
        is_said(&hears, &[5, 5]);
        client.write_all(&[255, 250, 44, 5, 6, 255, 240]).unwrap();
        is_said(&hears, &[5, 6]);
    }
}

/// A peer is served at a port where its client expects a serial server.
#[test]
fn a_session_at_a_listener() {
    let place = Place::new();
    let at = "rfc2217:127.0.0.1:0";
    let server = place.serve(&[at, "--service", "up=exec:sha256sum", "--allow", "any"]);
    for _ in 0..2 {
        works(&place, &server.address());
    }
}

/// An echo is a loopback plug.
#[test]
fn a_probe_shows_what_the_server_tells_of_its_port() {
    let place = Place::new();
    let (port, _hears) = telnet_server();
    let at = format!("rfc2217:127.0.0.1:{port},baud=921600");
    let table = place.succeeds(&["probe", &at]);
    let row = "serial server  CTS on, DSR on, RI off, DCD off, 1 framing error, 1 break\n";
    assert!(table.contains(row), "{table}");
    let json = place.succeeds(&["probe", &at, "--json"]);
    let part = "\"serial_server\":{\"breaks\":1,\"framing_errors\":1,\"modem\":{\"carrier\":false,\"cts\":true,";
    assert!(json.contains(part), "{json}");
}

/// ser2net passes it on to a device that is another server's.
#[test]
fn a_break_is_carried_through_ser2net() {
    let Some(program) = have("ser2net") else {
        return;
    };
    let place = Place::new();
    let (port, hears) = telnet_server();
    let behind = format!("telnet(rfc2217),tcp,127.0.0.1,{port}");
    let (_ser2net, [front]) = ser2net(&place, &program, &[("telnet(rfc2217),tcp", behind)]);
    break_reaches(
        &place,
        &format!("rfc2217:127.0.0.1:{front},baud=9600"),
        &hears,
    );
}
