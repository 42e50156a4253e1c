//! The demo, as a fresh user runs it.

mod common;

use common::{Place, text};

#[test]
fn every_transport_has_an_equal_row() {
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
    for transport in ["TCP", "Unix socket", "subprocess", "serial line"] {
        let row = table
            .lines()
            .find(|l| l.starts_with(transport))
            .unwrap_or_default();
        assert!(row.ends_with("equal"), "{transport}: {table}");
        assert!(row.contains('%') && row.contains("MiB/s"), "{row}");
    }
}
