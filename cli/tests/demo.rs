//! The demo, as a fresh user runs it.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Place, finish, text};

#[test]
fn every_transport_has_an_equal_column() {
    let place = Place::new();
    let output = place.run(&["demo", "--size", "1"]);
    let table = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{table}{}",
        text(&output.stderr)
    );
    assert_eq!(
        text(&output.stderr),
        "",
        "no progress where there is no terminal"
    );
    // Columns that do not fit beside the others stand below them.
    let line = |word: &str| {
        let parts = table.lines().filter_map(|line| line.strip_prefix(word));
        parts.collect::<Vec<_>>().join(" ")
    };
    let heads = line("transport");
    for transport in [
        "TCP",
        "WebSocket",
        "QUIC",
        "Unix socket",
        "subprocess",
        "serial line",
        "serial server",
    ] {
        assert!(heads.contains(transport), "{transport}: {table}");
    }
    assert_eq!(line("SHA-256").matches("equal").count(), 7, "{table}");
    assert_eq!(line("overhead").matches('%').count(), 7, "{table}");
    assert_eq!(line("cut").matches(" 1, ").count(), 1, "{table}");
    assert_eq!(line("cut").matches(" ms").count(), 1, "{table}");
    assert_eq!(line("throughput").matches("MiB/s").count(), 7, "{table}");
    // Each layer carries what the one above it does, also where a connection was cut.
    let row = |word: &str| {
        let numbers = line(word);
        let numbers = numbers.split_whitespace();
        let numbers: Vec<u64> = numbers
            .map(|n| n.replace(',', "").parse().unwrap())
            .collect();
        assert_eq!(numbers.len(), 7, "{table}");
        numbers
    };
    let layers = ["application", "mux", "TLS", "wire"].map(row);
    for column in 0..7 {
        let column = layers.each_ref().map(|row| row[column]);
        assert!(column.is_sorted(), "{column:?}: {table}");
    }
    let one = place.succeeds(&["demo", "--size", "1", "--only", "ws"]);
    assert_eq!(one.matches("equal").count(), 1, "{one}");
    assert!(one.contains("mux+tls+ws"), "{one}");
    place.fails(&["demo", "--only", "pigeon"], 2);
    let wide = table.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new();
        let at = place.path("tmp");
        std::fs::create_dir(&at).unwrap();
        let mut command = place.cepa(&["demo", "--size", "1024"]);
        let child = command.env("TMPDIR", &at).spawn().unwrap();
        let is_empty = || std::fs::read_dir(&at).unwrap().next().is_none();
        let start = Instant::now();
        while is_empty() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(common::signal(&child.id().to_string(), signal));
        let output = finish(child);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(is_empty());
    }
}
