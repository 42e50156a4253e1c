//! The demo, as a fresh user runs it.

mod common;

use common::{Place, text};

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
    let line = |word: &str| table.lines().find(|line| line.starts_with(word)).unwrap();
    let heads = line("transport");
    for transport in ["TCP", "Unix socket", "subprocess", "serial line"] {
        assert!(heads.contains(transport), "{transport}: {table}");
    }
    assert_eq!(line("SHA-256").matches("equal").count(), 4, "{table}");
    assert_eq!(line("overhead").matches('%').count(), 4, "{table}");
    assert_eq!(line("cut").matches(" 1, ").count(), 1, "{table}");
    assert_eq!(line("cut").matches(" ms").count(), 1, "{table}");
    assert_eq!(line("throughput").matches("MiB/s").count(), 4, "{table}");
    let wide = table.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
}
