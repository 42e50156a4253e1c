//! The rules, tried on small houses; most cases stand in `cases.txt`.

use std::fmt::Debug;

use crate::rules::{
    MOST_LINES, connections_elsewhere, heads_and_sizes, impure_engines, reaching_up, rings, table,
};
use crate::tree::Tree;

const TABLE: &str = "
| floor | where | owns | may use |
|---|---|---|---|
| 0 | `transports/` | streams | - |
| 1 | `src/identity/` | keys | `transports/` |
| 1 | `src/mux/` | frames | `transports/` |
| 2 | `src/tls/` | TLS | `src/identity/`, `transports/` |
| 3 | `src/stack.rs` | stacks | all below |
| 4 | `src/lib.rs` | names | all below |

| floor | where | owns | may use |
|---|---|---|---|
| 5 | `cli/src/exit.rs`, `cli/src/log.rs` | ends | all below |
| 6 | `cli/src/` | commands | all below |
";

/// A clean file in every place of the table.
const HOUSE: &str = "
transports/src/lib.rs: mod side; pub use side::Side; pub struct Endpoint; ;;
transports/src/side.rs: pub enum Side {} ;;
src/identity/mod.rs: ;; src/mux/mod.rs: ;; src/tls/mod.rs: ;;
src/stack.rs: use crate::{tls::Peer, mux}; use cepa_transports::Endpoint; fn f() { mux::g() } ;;
src/lib.rs: pub mod stack; pub mod mux; pub use stack::Stack; pub use cepa_transports::Side; ;;
cli/src/exit.rs: use cepa::stack::Stack; ;;
cli/src/log.rs: use crate::exit; fn f() { exit::say() } ;;
cli/src/serve.rs: use crate::log; fn f() { log::g() }";

/// The house with these files in it, or in place of its own.
fn house(more: &str) -> Tree {
    let files = [HOUSE, more]
        .map(|files| files.split(";;"))
        .into_iter()
        .flatten();
    let files = files.filter_map(|file| file.trim().split_once(':'));
    let files: Vec<_> = files
        .map(|(path, text)| (path, head(text.trim_start_matches(' '))))
        .collect();
    Tree::new(files.iter().map(|(path, text)| (*path, text.as_str())))
}

fn head(text: &str) -> String {
    format!("//! x\n{text}").replace('¶', "\n")
}

/// One sentence for each of `parts`, in their order.
fn found(what: &dyn Debug, broken: &[String], parts: &[&str]) {
    let each = broken
        .iter()
        .zip(parts)
        .all(|(reported, part)| reported.contains(part));
    assert!(
        broken.len() == parts.len() && each,
        "{what:#?}\nwanted {parts:#?}\nfound {broken:#?}"
    );
}

#[test]
fn each_rule_finds_what_breaks_it_and_nothing_else() {
    for case in include_str!("cases.txt").lines() {
        let Some((rule, (files, reported))) = case
            .split_once(' ')
            .filter(|(rule, _)| *rule != "#")
            .and_then(|(rule, rest)| Some((rule, rest.rsplit_once("=>")?)))
        else {
            assert!(case.is_empty() || case.starts_with('#'), "no case: {case}");
            continue;
        };
        let tree = house(files);
        let broken = match rule {
            "up" => reaching_up(&tree, &table(TABLE)),
            "rings" => rings(&tree),
            "engines" => impure_engines(&tree),
            "rustls" => connections_elsewhere(&tree),
            _ => panic!("no rule: {case}"),
        };
        let parts = reported
            .split("&&")
            .map(str::trim)
            .filter(|part| !part.is_empty());
        found(&case, &broken, &parts.collect::<Vec<_>>());
    }
}

#[test]
fn the_table_is_read() {
    let rooms = table(TABLE);
    assert_eq!(rooms.len(), 8);
    assert_eq!(
        (rooms[3].floor, rooms[3].places[0].as_str()),
        (2, "src/tls/")
    );
    assert_eq!(rooms[3].may_use, ["src/identity/", "transports/"]);
    assert_eq!(rooms[4].may_use.len(), 4);
    assert_eq!(rooms[6].places, ["cli/src/exit.rs", "cli/src/log.rs"]);
}

#[test]
fn a_table_that_contradicts_itself_is_found() {
    let cases = [
        ("streams | -", "streams | `src/tls/`", "not below it"),
        ("streams | -", "streams | `src/x/`", "which is no room"),
        (
            "`cli/src/log.rs`",
            "`cli/src/log.rs`, `src/x.rs`",
            "src/x.rs: in the table",
        ),
        (
            "| 4 |",
            "| 4 | `src/x/` | - | - |\n| 4 |",
            "src/x/: in the table",
        ),
    ];
    for (from, to, wrong) in cases {
        let contradicts = TABLE.replace(from, to);
        found(
            &contradicts,
            &reaching_up(&house(""), &table(&contradicts)),
            &[wrong],
        );
    }
}

#[test]
fn headless_and_long_files_are_found() {
    let long = "fn f() {}¶".repeat(MOST_LINES);
    let tested = format!("#[cfg(test)]¶mod t {{¶{long}}}");
    let of_tests = format!("#[cfg(test)] mod y; ;; src/mux/x/y.rs: {long}");
    for (path, text, wrong) in [
        ("src/mux/x.rs", &long, &["src/mux/x.rs: 601 lines"][..]),
        ("src/mux/x.rs", &tested, &[]),
        ("src/mux/x.rs", &of_tests, &[]),
        ("src/mux/tests.rs", &long, &[]),
    ] {
        found(
            &path,
            &heads_and_sizes(&house(&format!("{path}: {text}"))),
            wrong,
        );
    }
    let headless = Tree::new([("examples/x.rs", "fn main() {}")]);
    found(
        &(),
        &heads_and_sizes(&headless),
        &["examples/x.rs: does not open"],
    );
}
