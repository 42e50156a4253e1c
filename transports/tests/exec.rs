//! Commands: half close, diagnostics apart, the exit status after the drain, and the end of their lives.
use std::time::Duration;

use cepa_transports::{Endpoint, Remote, dial, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// The process exists and is no zombie.
fn running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or("").chars().next();
    state.is_some_and(|s| s != 'Z' && s != 'X')
}

async fn gone(pid: u32) {
    for _ in 0..2000 {
        if !running(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {pid} lives on");
}

#[tokio::test]
async fn half_close_gives_the_command_its_end_of_input() {
    let mut stream = dial(&endpoint("exec:sort")).await.unwrap();
    stream.write_all(b"b\na\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut sorted = String::new();
    stream.read_to_string(&mut sorted).await.unwrap();
    assert_eq!(sorted, "a\nb\n");
    assert!(
        stream.label().starts_with("exec sort (pid "),
        "{}",
        stream.label()
    );
    assert_eq!(stream.remote(), &Remote::Child);
}

#[tokio::test]
async fn diagnostics_come_apart_and_the_status_after_them() {
    let script = "exec:sh -c 'echo out; echo one >&2; cat >/dev/null; printf \"two\\r\\nthree\" >&2; exit 7'";
    let mut stream = dial(&endpoint(script)).await.unwrap();
    let mut child = stream.take_child().unwrap();
    assert!(stream.take_child().is_none());
    let stderr = child.stderr();
    assert_eq!(stderr.next_line().await.as_deref(), Some("one"));
    stream.shutdown().await.unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "out\n");
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    // Everything is there already.
    assert_eq!(stderr.take_lines(), ["two", "three"]);
    assert_eq!(stderr.next_line().await, None);
    assert_eq!(child.wait().await.unwrap().code(), Some(7), "and again");
}

#[tokio::test]
async fn a_burst_of_diagnostics_waits_for_a_slow_reader() {
    let mut stream = dial(&endpoint("exec:sh -c 'seq 30000 >&2'")).await.unwrap();
    let mut child = stream.take_child().unwrap();
    let stderr = child.stderr();
    let reader = async {
        let mut next = 1;
        while let Some(line) = stderr.next_line().await {
            assert_eq!(line, next.to_string());
            next += 1;
            if next % 1000 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        next - 1
    };
    let (status, lines) = tokio::join!(child.wait(), reader);
    assert!(status.unwrap().success());
    assert_eq!((lines, stderr.lost()), (30_000, 0));
}

#[tokio::test]
async fn a_command_that_talks_without_end_is_neither_stopped_nor_kept_whole() {
    // 20,000 lines: far more than a pipe holds, and nobody reads them.
    let script = "exec:sh -c 'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done >&2; echo done'";
    let mut stream = dial(&endpoint(script)).await.unwrap();
    let mut child = stream.take_child().unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "done\n");
    assert!(child.wait().await.unwrap().success());
    let lines = child.stderr().take_lines();
    assert_eq!(lines.last().map(String::as_str), Some("line 19999"));
    assert_eq!(lines.len() as u64 + child.stderr().lost(), 20_000);
}

#[tokio::test]
async fn waiting_does_not_hang_on_a_process_left_behind() {
    // The sleep keeps standard error open after the shell has ended.
    let mut stream = dial(&endpoint(
        "exec:sh -c 'sleep 600 >/dev/null & echo $!; exit 3'",
    ))
    .await
    .unwrap();
    let mut child = stream.take_child().unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(60), child.wait())
        .await
        .unwrap();
    assert_eq!(status.unwrap().code(), Some(3));
    // The one that this test has started.
    let left = rustix::process::Pid::from_raw(out.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn dropping_the_stream_kills_the_command() {
    let mut stream = dial(&endpoint("exec:sh -c 'echo $$; exec sleep 600'"))
        .await
        .unwrap();
    let mut pid = [0; 32];
    let n = stream.read(&mut pid).await.unwrap();
    let pid: u32 = std::str::from_utf8(&pid[..n])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(running(pid));
    drop(stream);
    gone(pid).await;
}

#[tokio::test]
async fn a_child_taken_over_outlives_the_stream_and_dies_with_its_handle() {
    let mut stream = dial(&endpoint("exec:sleep 600")).await.unwrap();
    let child = stream.take_child().unwrap();
    let pid = child.id().unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(running(pid));
    drop(child);
    gone(pid).await;
}

#[tokio::test]
async fn the_directory_option() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let mut stream = dial(&endpoint(&format!("exec:pwd -P,dir={}", real.display())))
        .await
        .unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).await.unwrap();
    assert_eq!(out.trim(), real.display().to_string());
}

#[tokio::test]
async fn listening_on_a_command_gives_one_stream() {
    let mut listener = listen(&endpoint("exec:cat")).await.unwrap();
    let mut stream = listener.accept().await.unwrap().unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "x");
    assert!(listener.accept().await.unwrap().is_none());
}
