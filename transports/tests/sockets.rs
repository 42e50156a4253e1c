//! Listeners: what they leave behind, what they replace, and how accept behaves when it is dropped.
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use cepa_transports::{Endpoint, Remote, Stream, dial, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn a_unix_socket_is_private_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let address = endpoint(&format!("unix:{}", path.display()));
    let listener = listen(&address).await.unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary name is left"
    );
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = endpoint(&format!("unix:{}", path.display()));
    let mut listener = listen(&address).await.unwrap();
    let (a, b) = tokio::join!(dial(&address), listener.accept());
    assert!(a.is_ok() && b.unwrap().is_some());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_unix_socket_that_is_no_longer_ours_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = listen(&endpoint(&format!("unix:{}", path.display())))
        .await
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    drop(listener);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
}

#[tokio::test]
async fn a_path_with_hardly_room_for_a_temporary_name() {
    let dir = tempfile::tempdir().unwrap();
    // As long as a socket's address may be (107 bytes and a NUL on Linux).
    let name = "x".repeat(107 - dir.path().as_os_str().len() - 1);
    let path = dir.path().join(name);
    let address = endpoint(&format!("unix:{}", path.display()));
    let mut listener = listen(&address).await.unwrap();
    let (a, b) = tokio::join!(dial(&address), listener.accept());
    assert!(a.is_ok() && b.unwrap().is_some());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_dropped_accept_loses_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    for address in [
        "tcp:127.0.0.1:0".to_owned(),
        format!("unix:{}/socket", dir.path().display()),
        "memory:dropped-accept".to_owned(),
    ] {
        let mut listener = listen(&endpoint(&address)).await.unwrap();
        let pending = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(pending.is_err(), "{address}: nobody has dialled");
        let at = listener.endpoint().clone();
        let mut dialled = dial(&at).await.unwrap();
        let mut accepted = listener.accept().await.unwrap().unwrap();
        dialled.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        accepted.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    }
}

#[tokio::test]
async fn labels_show_where_a_stream_leads() {
    let mut listener = listen(&endpoint("tcp:127.0.0.1:0")).await.unwrap();
    let at = listener.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
    assert_eq!(
        dialled.unwrap().label(),
        at.to_string().replacen(':', " ", 1)
    );
    assert!(
        accepted
            .unwrap()
            .unwrap()
            .label()
            .starts_with("tcp 127.0.0.1:")
    );
}

#[tokio::test]
async fn both_ends_know_where_a_stream_leads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut tcp = listen(&endpoint("tcp:127.0.0.1:0")).await.unwrap();
    let at = tcp.endpoint().clone();
    let (dialled, accepted) = tokio::join!(dial(&at), tcp.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().unwrap());
    let place = at.to_string().replace("tcp:", "").parse().unwrap();
    assert_eq!(dialled.remote(), &Remote::Tcp(place));
    // Of who dialled the port is not known beforehand; its label has it too.
    let label = accepted.label().strip_prefix("tcp ").unwrap();
    assert_eq!(accepted.remote(), &Remote::Tcp(label.parse().unwrap()));
    for (address, remote) in [
        (format!("unix:{}", path.display()), Remote::Unix(path)),
        ("memory:remote".to_owned(), Remote::Memory),
    ] {
        let at = endpoint(&address);
        let mut listener = listen(&at).await.unwrap();
        let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
        assert_eq!(dialled.unwrap().remote(), &remote);
        assert_eq!(accepted.unwrap().unwrap().remote(), &remote);
    }
    let (a, b) = cepa_transports::memory::pair();
    assert_eq!((a.remote(), b.remote()), (&Remote::Memory, &Remote::Memory));
}

#[tokio::test]
async fn a_program_s_own_stream_is_unknown_until_it_says_more() {
    // A label is for people: nothing is read out of it.
    let stream = Stream::from_io(tokio::io::duplex(1).0, "tcp 192.0.2.1:4711");
    assert_eq!(stream.remote(), &Remote::Unknown);
    let remote = Remote::Tcp("192.0.2.1:4711".parse().unwrap());
    let stream = stream.with_remote(remote.clone());
    assert_eq!(stream.remote(), &remote);
}

#[tokio::test]
async fn layers_of_an_address_are_not_built_here() {
    let mut listener = listen(&endpoint("mux+tls+memory:layers")).await.unwrap();
    assert_eq!(listener.endpoint().to_string(), "mux+tls+memory:layers");
    let at = endpoint("memory:layers");
    let (a, b) = tokio::join!(dial(&at), listener.accept());
    a.unwrap().write_all(b"plain").await.unwrap();
    let mut text = String::new();
    b.unwrap().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "plain");
}

/// A dialler that is killed closes its socket, and says nothing.
#[tokio::test]
async fn a_cut_is_distinguished_from_an_end_where_both_ends_are_framed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let at = endpoint(&format!("unix:{},framed", path.display()));
    let mut listener = listen(&at).await.unwrap();
    assert_eq!(listener.endpoint(), &at);
    for ends in [true, false] {
        let (dialled, accepted) = tokio::join!(dial(&at), listener.accept());
        let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap().unwrap());
        assert!(matches!(accepted.remote(), Remote::Unix(_)));
        dialled.write_all(b"half a file").await.unwrap();
        if ends {
            dialled.shutdown().await.unwrap();
        }
        // What TCP has for this says nothing more here.
        dialled.cut_when_dropped(false);
        drop(dialled);
        let mut got = String::new();
        let read = accepted.read_to_string(&mut got).await;
        assert_eq!(
            read.map_err(|e| e.kind()),
            if ends {
                Ok(11)
            } else {
                Err(std::io::ErrorKind::UnexpectedEof)
            }
        );
    }
    // A program that knows no frames.
    let mut plain = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut accepted = listener.accept().await.unwrap().unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = accepted.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn both_ends_of_a_unix_socket_know_whose_process_the_other_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let own = std::fs::metadata(dir.path()).unwrap().uid();
    for framed in ["", ",framed"] {
        let path = dir.path().join("socket");
        let address = endpoint(&format!("unix:{}{framed}", path.display()));
        let mut listener = listen(&address).await.unwrap();
        let (near, far) = tokio::join!(dial(&address), listener.accept());
        let far = far.unwrap().unwrap();
        assert_eq!(near.unwrap().peer_user(), Some(own), "{framed}");
        assert_eq!(far.peer_user(), Some(own), "{framed}");
    }
    let mut listener = listen(&endpoint("tcp:127.0.0.1:0")).await.unwrap();
    let at = listener.endpoint().clone();
    let (near, _far) = tokio::join!(dial(&at), listener.accept());
    assert_eq!(near.unwrap().peer_user(), None);
}
