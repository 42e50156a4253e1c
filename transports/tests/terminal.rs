//! Commands on a terminal of their own: `exec:…,pty=yes`.
use std::time::Duration;

use cepa_transports::{Endpoint, Stream, Terminal, WindowSize, dial, dial_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const GUARD: Duration = Duration::from_secs(60);

fn on_a_pty(command: &str) -> Endpoint {
    let text = format!("exec:sh -c '{command}',pty=yes");
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

async fn all(stream: &mut Stream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(GUARD, stream.read_to_end(&mut bytes));
    read.await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn until(stream: &mut Stream, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut some = [0; 256];
        let n = timeout(GUARD, stream.read(&mut some))
            .await
            .unwrap()
            .unwrap();
        assert!(n > 0, "it ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    seen
}

#[tokio::test]
async fn the_command_has_a_terminal_and_its_window() {
    let terminal = Terminal {
        kind: Some("cepa-test".to_owned()),
        size: WindowSize {
            rows: 31,
            columns: 97,
        },
    };
    let command = on_a_pty("test -t 0 -a -t 1 -a -t 2 && echo $TERM && stty size </dev/tty");
    let mut stream = dial_for(&command, &terminal).await.unwrap();
    assert_eq!(all(&mut stream).await, "cepa-test\r\n31 97\r\n");
    let status = stream.take_child().unwrap().wait().await.unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_window_that_changes_is_reported() {
    let command = on_a_pty("trap \"stty size\" WINCH; echo up; while :; do sleep 0.05; done");
    let mut stream = dial(&command).await.unwrap();
    until(&mut stream, "up\r\n").await;
    let size = WindowSize {
        rows: 50,
        columns: 132,
    };
    let control = stream.control().unwrap();
    control.resize(size).unwrap();
    until(&mut stream, "50 132\r\n").await;
    drop(stream);
    control.resize(size).unwrap();
}

#[tokio::test]
async fn all_output_comes_before_the_end_and_the_status_is_known() {
    let mut stream = dial(&on_a_pty("head -c 300000 /dev/zero; exit 3"))
        .await
        .unwrap();
    assert_eq!(all(&mut stream).await.len(), 300_000);
    let status = stream.take_child().unwrap().wait().await.unwrap();
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn the_interrupt_character_is_a_signal_to_what_runs_in_the_foreground() {
    // Short sleeps: whatever the signal finds running, the shell gets to its trap soon.
    let command =
        on_a_pty("trap \"echo interrupted; exit 9\" INT; echo up; while :; do sleep 0.05; done");
    let mut stream = dial(&command).await.unwrap();
    until(&mut stream, "up\r\n").await;
    stream.write_all(b"\x03").await.unwrap();
    let seen = all(&mut stream).await;
    assert!(seen.ends_with("interrupted\r\n"), "{seen:?}");
    let status = stream.take_child().unwrap().wait().await.unwrap();
    assert_eq!(status.code(), Some(9));
}

#[tokio::test]
async fn shutting_down_is_the_end_of_input() {
    let mut stream = dial(&on_a_pty("stty -echo; cat; echo done")).await.unwrap();
    stream.write_all(b"a half line").await.unwrap();
    stream.shutdown().await.unwrap();
    let seen = all(&mut stream).await;
    assert!(seen.ends_with("done\r\n"), "{seen:?}");
}

#[tokio::test]
async fn dropping_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let command = format!(
        "trap \"echo hung up > {}; exit\" HUP; echo up; while :; do sleep 0.05; done",
        note.display()
    );
    let mut stream = dial(&on_a_pty(&command)).await.unwrap();
    until(&mut stream, "up").await;
    let mut child = stream.take_child().unwrap();
    drop(stream);
    timeout(GUARD, child.wait()).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(note).unwrap(), "hung up\n");
}
