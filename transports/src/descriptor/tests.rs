//! Which way each kind of descriptor goes, that shared flags stay as they are, and the conformance
//! suite over each way.
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fcntl_getfl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::thread::{ThreadReader, ThreadWriter};
use super::{Descriptors, ReadHalf, WriteHalf};
use crate::hang_up::HangUp;
use crate::testkit::{Options, check_streams};

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (master, slave)
}

fn both(fd: OwnedFd) -> io::Result<Descriptors> {
    Descriptors::new(fd.try_clone()?, fd)
}

fn by_threads(read: OwnedFd, write: OwnedFd) -> io::Result<Descriptors> {
    Ok(Descriptors {
        read: ReadHalf::Thread(ThreadReader::new(read)?),
        write: WriteHalf::Thread(ThreadWriter::new(write)?),
        hang_up: HangUp::default(),
    })
}

#[tokio::test]
async fn each_kind_goes_its_way() {
    let (r, w) = pipe();
    assert_eq!(Descriptors::new(r, w).unwrap().ways(), ("anew", "anew"));
    assert_eq!(both(sockets().0).unwrap().ways(), ("socket", "socket"));
    let (master, slave) = terminal();
    assert_eq!(both(slave).unwrap().ways(), ("anew", "anew"));
    assert_eq!(both(master).unwrap().ways(), ("thread", "thread"));
    let file = tempfile::tempfile().unwrap();
    assert_eq!(both(file.into()).unwrap().ways(), ("file", "file"));
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    assert_eq!(both(null.into()).unwrap().ways(), ("file", "file"));
}

#[tokio::test]
async fn shared_descriptions_stay_blocking() {
    let (master, slave) = terminal();
    let (r, w) = pipe();
    let (socket, peer) = sockets();
    let shared = [
        slave.try_clone().unwrap(),
        r.try_clone().unwrap(),
        socket.try_clone().unwrap(),
    ];
    let mut streams = [
        both(slave).unwrap(),
        Descriptors::new(r, w).unwrap(),
        both(socket).unwrap(),
    ];
    for stream in &mut streams {
        // Something to read, and a read that has to wait.
        let mut buf = [0; 16];
        let pending =
            tokio::time::timeout(std::time::Duration::from_millis(5), stream.read(&mut buf));
        assert!(pending.await.is_err());
        stream.write_all(b"x\n").await.unwrap();
        stream.flush().await.unwrap();
    }
    for fd in &shared {
        assert!(!fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
    }
    drop((streams, master, peer));
    for fd in &shared {
        assert!(!fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
    }
}

#[tokio::test]
async fn files_keep_their_position_and_are_written_whole() {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"skipped, read").unwrap();
    file.seek(SeekFrom::Start(9)).unwrap();
    let output = tempfile::tempfile().unwrap();
    let mut stream = Descriptors::new(file.into(), output.try_clone().unwrap().into()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "read");
    let data = vec![7; 3_000_000];
    stream.write_all(&data).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(stream.write_all(b"late").await.is_err());
    let mut output = output;
    output.seek(SeekFrom::Start(0)).unwrap();
    let mut written = Vec::new();
    output.read_to_end(&mut written).unwrap();
    assert!(written == data);
}

#[tokio::test]
async fn a_terminal_s_end_of_file_stays() {
    let (master, slave) = terminal();
    let mut stream = both(slave).unwrap();
    // Ctrl-D on an empty line, then more typing.
    rustix::io::write(&master, b"line\n\x04more\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "line\n");
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_named_pipe_whose_writer_is_gone_is_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let open =
        |flags: OFlags| rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let reader = open(OFlags::RDONLY | OFlags::NONBLOCK);
    drop(open(OFlags::WRONLY));
    let mut stream = Descriptors::new(reader, sockets().0).unwrap();
    let end =
        tokio::time::timeout(std::time::Duration::from_secs(60), stream.read(&mut [0; 8])).await;
    assert_eq!(end.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn conformance_of_pipes() {
    let make = || async {
        let ((r1, w1), (r2, w2)) = (pipe(), pipe());
        (
            Descriptors::new(r1, w2).unwrap(),
            Descriptors::new(r2, w1).unwrap(),
        )
    };
    check_streams(&Options::default(), make).await.unwrap();
}

#[tokio::test]
async fn conformance_of_sockets() {
    let make = || async {
        let (a, b) = sockets();
        (both(a).unwrap(), both(b).unwrap())
    };
    check_streams(&Options::default(), make).await.unwrap();
}

#[tokio::test]
async fn conformance_of_threads() {
    let make = || async {
        let ((r1, w1), (r2, w2)) = (pipe(), pipe());
        (by_threads(r1, w2).unwrap(), by_threads(r2, w1).unwrap())
    };
    check_streams(&Options::default(), make).await.unwrap();
}

#[test]
fn a_stuck_read_keeps_nobody_from_leaving() {
    let (r, _open) = pipe();
    let (_held, w) = pipe();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stream = by_threads(r, w).unwrap();
        let mut buf = [0; 1];
        let pending =
            tokio::time::timeout(std::time::Duration::from_millis(5), stream.read(&mut buf));
        assert!(pending.await.is_err());
    });
    // With tokio's own blocking threads this would never return.
    drop(runtime);
}
