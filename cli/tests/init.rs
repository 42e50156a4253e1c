//! The tool as process 1 of a pid namespace: signals end it, and what loses its parent is reaped. Where this user may not make
//! such a namespace, the tests say so and pass.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

mod common;
use common::{PATIENCE, Place, Server};

fn may() -> bool {
    let made = Command::new("unshare")
        .args(["-fp", "--mount-proc", "true"])
        .output();
    let may = made.is_ok_and(|made| made.status.success());
    if !may {
        eprintln!("SKIPPED: this user may not make a pid namespace (unshare -fp --mount-proc)");
    }
    may
}

/// Process 1 of a new namespace, by its number outside.
fn inside(unshare: u32) -> u32 {
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let start = Instant::now();
    loop {
        let read = fs::read_to_string(&children).unwrap_or_default();
        if let Some(child) = read.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "no child of unshare");
        thread::sleep(Duration::from_millis(10));
    }
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

fn start(place: &Place, words: &[&str]) -> std::process::Child {
    Command::new("unshare")
        .args(["-fp", "--mount-proc"])
        .arg(common::bin())
        .args(words)
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn process_1_ends_by_a_signal_as_any_other_process() {
    if !may() {
        return;
    }
    let place = Place::new();
    for (signal, words, status) in [
        // One that ends in order, and two without a handler.
        (
            "-TERM",
            &["serve", "tcp:127.0.0.1:0", "--service", "e=echo:"][..],
            0,
        ),
        ("-TERM", &["pipe", "stdio:", "exec:sleep 1000"][..], 143),
        ("-INT", &["pipe", "stdio:", "exec:sleep 1000"][..], 130),
    ] {
        let mut child = start(&place, words);
        let first = inside(child.id());
        // Its own child is what does the work.
        let worker = inside(first);
        let start = Instant::now();
        while words[0] == "serve" && !listens(worker) {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(200));
        kill(signal, first);
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            if start.elapsed() > PATIENCE {
                kill("-KILL", first);
                panic!("{words:?} takes no notice of {signal}");
            }
            thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(ended.code(), Some(status), "{words:?}");
    }
}

/// Whether it has a TCP listener, which comes last.
fn listens(pid: u32) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let sockets: Vec<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .filter_map(|to| {
            Some(
                to.to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(3) == Some(&"0A")
            && words
                .get(9)
                .is_some_and(|inode| sockets.iter().any(|s| s == inode))
    })
}

#[test]
fn process_1_reaps_what_loses_its_parent() {
    if !may() {
        return;
    }
    let place = Place::new();
    let done = place.text("done");
    // The middle one ends at once, and its child becomes one of process 1, which is to be gone when it has ended.
    let orphan = format!("(sleep 0.1; echo > {done}) & exit 0");
    let command = format!("exec:sh -c 'setsid sh -c \"{orphan}\" & sleep 1000'");
    let mut child = start(&place, &["pipe", "stdio:", &command]);
    let first = inside(child.id());
    let start = Instant::now();
    while !std::path::Path::new(&done).exists() {
        assert!(start.elapsed() < PATIENCE, "the orphan did not run");
        thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    loop {
        let zombies = children(first).into_iter().filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.contains(") Z ")
        });
        if zombies.count() == 0 && children(first).len() == 1 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "not reaped");
        thread::sleep(Duration::from_millis(50));
    }
    kill("-KILL", first);
    child.wait().unwrap();
}

fn children(pid: u32) -> Vec<u32> {
    let read = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    read.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Beside it: an ordinary process is none of that.
#[test]
fn any_other_process_does_its_work_itself() {
    let place = Place::new();
    let server: Server = place.serve(&["tcp:127.0.0.1:0", "--service", "e=echo:"]);
    assert_eq!(children(server.pid()), Vec::<u32>::new());
}
