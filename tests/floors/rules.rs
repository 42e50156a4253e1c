//! The rules of the house, each a function from the sources to sentences about what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, Tree};

/// Files with more lines than this hide two rooms in one; test code is not counted.
const MOST_LINES: usize = 600;

/// One row of the table in ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) floor: u8,
    /// A folder with `/` at its end, or one file.
    pub(crate) place: String,
    /// Places that it may use; `all below` in the table stands for every room of a lower floor.
    pub(crate) may_use: Vec<String>,
}

/// Reads the rows `| floor | place | owns | may use |`, whose floor is a number.
pub(crate) fn table(markdown: &str) -> Vec<Room> {
    let mut rooms = Vec::new();
    let mut all_below = Vec::new();
    for line in markdown.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, floor, place, _, may_use, _] = cells[..] else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        all_below.push(may_use.contains("all below"));
        rooms.extend(quoted(place).into_iter().take(1).map(|place| Room {
            floor,
            place,
            may_use: quoted(may_use),
        }));
    }
    let places: Vec<(u8, String)> = rooms.iter().map(|r| (r.floor, r.place.clone())).collect();
    for (room, _) in rooms.iter_mut().zip(all_below).filter(|(_, all)| *all) {
        let below = places.iter().filter(|(floor, _)| *floor < room.floor);
        room.may_use = below.map(|(_, place)| place.clone()).collect();
    }
    rooms
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn room_of<'a>(rooms: &'a [Room], path: &str) -> Option<&'a Room> {
    let holds = |room: &&Room| {
        path == room.place || (room.place.ends_with('/') && path.starts_with(&room.place))
    };
    rooms
        .iter()
        .filter(holds)
        .max_by_key(|room| room.place.len())
}

/// Files whose uses are judged: those of the three crates, tests excluded.
fn built(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files
        .values()
        .filter(|file| !file.is_test && !file.module.is_empty())
}

/// No file reaches up, or sideways where the table does not say so.
pub(crate) fn reaching_up(tree: &Tree, rooms: &[Room]) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for room in rooms {
        if !tree
            .files
            .keys()
            .any(|path| room_of(rooms, path) == Some(room))
        {
            broken.insert(format!(
                "{}: in the table of floors, but no file is there",
                room.place
            ));
        }
        for used in &room.may_use {
            match rooms.iter().find(|other| other.place == *used) {
                None => {
                    broken.insert(format!("{}: may use {used}, which is no room", room.place));
                }
                Some(other) if other.floor >= room.floor => {
                    broken.insert(format!(
                        "{}: may use {used}, which is not below it",
                        room.place
                    ));
                }
                Some(_) => {}
            }
        }
    }
    for file in built(tree) {
        let Some(room) = room_of(rooms, &file.path) else {
            broken.insert(format!(
                "{}: has no floor; give it one in ARCHITECTURE.md",
                file.path
            ));
            continue;
        };
        for mention in &file.mentions {
            let Some(target) = tree.target(file, &mention.path) else {
                continue;
            };
            let Some(other) = room_of(rooms, &target.path) else {
                continue;
            };
            if other != room && !room.may_use.contains(&other.place) {
                broken.insert(format!(
                    "{}:{}: {} (floor {}) uses {} of {} (floor {})",
                    file.path,
                    mention.line,
                    room.place,
                    room.floor,
                    mention.path.join("::"),
                    other.place,
                    other.floor,
                ));
            }
        }
    }
    broken.into_iter().collect()
}

/// No two files import each other, not even in a ring.
pub(crate) fn rings(tree: &Tree) -> Vec<String> {
    let mut uses = BTreeMap::<&str, BTreeSet<&str>>::new();
    for file in built(tree) {
        let targets = file
            .mentions
            .iter()
            .filter_map(|m| tree.target(file, &m.path));
        uses.insert(
            &file.path,
            targets
                .map(|t| t.path.as_str())
                .filter(|t| *t != file.path)
                .collect(),
        );
    }
    // The shortest way from each file back to itself; each ring is told once, from its first file.
    let mut broken = BTreeSet::new();
    for start in uses.keys() {
        let mut came_from = BTreeMap::<&str, &str>::new();
        let mut waiting = std::collections::VecDeque::from([*start]);
        while let Some(at) = waiting.pop_front() {
            for next in uses.get(at).into_iter().flatten() {
                if came_from.contains_key(next) {
                    continue;
                }
                came_from.insert(next, at);
                waiting.push_back(next);
            }
        }
        if !came_from.contains_key(start) {
            continue;
        }
        let mut ring = vec![came_from[start]];
        while ring.last() != Some(start) {
            ring.push(came_from[ring[ring.len() - 1]]);
        }
        ring.reverse();
        if ring.iter().min() == Some(start) {
            ring.push(start);
            broken.insert(format!("ring: {}", ring.join(" -> ")));
        }
    }
    broken.into_iter().collect()
}

/// What an engine may not name, at the start of a path: a runtime, or a part of the operating system.
/// std's traits, errors and slices for IO are words and do none, so `std::io` is not among them.
const NOT_IN_ENGINES: [&[&str]; 8] = [
    &["tokio"],
    &["futures"],
    &["rustix"],
    &["std", "net"],
    &["std", "fs"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
];
/// What it may not name anywhere in a path: clocks, and the process's own streams.
const NOT_IN_ENGINES_AT_ALL: [&[&str]; 6] = [
    &["Instant", "now"],
    &["SystemTime"],
    &["UnixTime", "now"],
    &["io", "stdin"],
    &["io", "stdout"],
    &["io", "stderr"],
];

/// Values that live beside IO in std: an address opens nothing.
const IN_ENGINES: [&[&str]; 3] = [
    &["std", "net", "IpAddr"],
    &["std", "net", "Ipv4Addr"],
    &["std", "net", "Ipv6Addr"],
];

/// Engines have no IO, no runtime and no clock, and can not borrow them from a file beside them.
pub(crate) fn impure_engines(tree: &Tree) -> Vec<String> {
    let mut broken = BTreeMap::new();
    let is_engine = |file: &&File| {
        file.path.ends_with("/engine.rs") || file.path.split('/').any(|part| part == "engine")
    };
    let folder = |file: &File| {
        file.path
            .rsplit_once('/')
            .map(|(folder, _)| folder.to_owned())
    };
    for engine in built(tree).filter(is_engine) {
        let mut seen = BTreeSet::from([engine.path.as_str()]);
        let mut waiting = vec![engine];
        while let Some(file) = waiting.pop() {
            let mut tell = |line: usize, what: &str| {
                let via = if file.path == engine.path {
                    String::new()
                } else {
                    format!(" (used by {})", engine.path)
                };
                let told = broken.entry((file.path.clone(), line)).or_default();
                if via.is_empty() || String::is_empty(told) {
                    *told = format!("{}:{line}: {what}{via}", file.path);
                }
            };
            for mention in &file.mentions {
                let path: Vec<&str> = mention.path.iter().map(String::as_str).collect();
                let first = NOT_IN_ENGINES.iter().any(|bad| path.starts_with(bad))
                    && !IN_ENGINES.iter().any(|good| path.starts_with(good));
                let within = |bad: &&[&str]| path.windows(bad.len()).any(|part| part == *bad);
                if first || NOT_IN_ENGINES_AT_ALL.iter().any(within) {
                    tell(mention.line, &format!("names {}", path.join("::")));
                }
                let next = tree.target(file, &mention.path);
                let beside = next.filter(|next| folder(next) == folder(engine));
                waiting.extend(beside.filter(|next| seen.insert(&next.path)));
            }
            for pair in file.tokens.windows(2) {
                if pair[0].text == "." && pair[1].text == "elapsed" {
                    tell(pair[1].line, "reads a clock by elapsed()");
                }
            }
        }
    }
    broken.into_values().collect()
}

/// The one file that names rustls's connections, so that its next API is one file's change.
const CONNECTIONS_LIVE_IN: &str = "src/tls/session.rs";
const CONNECTIONS: [&str; 6] = [
    "ClientConnection",
    "ServerConnection",
    "ConnectionCommon",
    "UnbufferedClientConnection",
    "UnbufferedServerConnection",
    "UnbufferedConnectionCommon",
];

pub(crate) fn connections_elsewhere(tree: &Tree) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for file in built(tree).filter(|file| file.path != CONNECTIONS_LIVE_IN) {
        for token in &file.tokens {
            if CONNECTIONS.contains(&token.text.as_str()) {
                broken.insert(format!(
                    "{}:{}: names {}",
                    file.path, token.line, token.text
                ));
            }
        }
        for mention in &file.mentions {
            if mention.path.first().is_some_and(|first| first == "rustls")
                && mention.path.last().is_some_and(|last| last == "Connection")
            {
                broken.insert(format!(
                    "{}:{}: names rustls::Connection",
                    file.path, mention.line
                ));
            }
        }
    }
    broken.into_iter().collect()
}

/// Every file opens with how it works and why; files that are not tests stay small.
pub(crate) fn heads_and_sizes(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.files.values() {
        if !file.has_head {
            broken.push(format!("{}: does not open with a //! comment", file.path));
        }
        if !file.is_test && file.lines > MOST_LINES {
            let lines = file.lines;
            broken.push(format!(
                "{}: {lines} lines without tests, {MOST_LINES} at most",
                file.path
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
| floor | where | owns | may use |
|---|---|---|---|
| 0 | `transports/` | streams | - |
| 1 | `src/identity/` | keys | `transports/` |
| 1 | `src/mux/` | frames | `transports/` |
| 2 | `src/tls/` | TLS | `src/identity/`, `transports/` |
| 3 | `src/stack.rs` | stacks | all below |
| 4 | `src/lib.rs` | names | all below |
";

    /// A tree with a file in every room, and the given ones.
    fn tree(extra: &[(&str, &str)]) -> Tree {
        let base = [
            ("transports/src/lib.rs", "//! t\npub struct Endpoint;"),
            ("src/identity/mod.rs", "//! i"),
            ("src/mux/mod.rs", "//! m"),
            ("src/tls/mod.rs", "//! t"),
            (
                "src/stack.rs",
                "//! s\nuse crate::{tls::Peer, mux, identity}; use cepa_transports::Endpoint;",
            ),
            (
                "src/lib.rs",
                "//! l\npub mod stack; pub mod mux; pub use stack::Stack;",
            ),
        ];
        Tree::new(base.into_iter().chain(extra.iter().copied()))
    }

    fn one(broken: &[String], part: &str) {
        assert!(
            broken.len() == 1 && broken[0].contains(part),
            "wanted one with {part:?}: {broken:#?}"
        );
    }

    #[test]
    fn the_table_is_read() {
        let rooms = table(TABLE);
        assert_eq!(rooms.len(), 6);
        assert_eq!((rooms[3].floor, rooms[3].place.as_str()), (2, "src/tls/"));
        assert_eq!(rooms[3].may_use, ["src/identity/", "transports/"]);
        assert_eq!(rooms[4].may_use.len(), 4);
    }

    #[test]
    fn a_clean_house_is_clean() {
        let tree = tree(&[]);
        assert_eq!(reaching_up(&tree, &table(TABLE)), Vec::<String>::new());
        assert_eq!(rings(&tree), Vec::<String>::new());
        assert_eq!(impure_engines(&tree), Vec::<String>::new());
        assert_eq!(connections_elsewhere(&tree), Vec::<String>::new());
        assert_eq!(heads_and_sizes(&tree), Vec::<String>::new());
    }

    #[test]
    fn reaching_up_is_found() {
        let up = tree(&[("src/mux/driver.rs", "//! d\n\nfn f(t: crate::tls::Peer) {}")]);
        one(
            &reaching_up(&up, &table(TABLE)),
            "src/mux/driver.rs:3: src/mux/ (floor 1) uses crate::tls::Peer",
        );
    }

    #[test]
    fn reaching_sideways_is_found() {
        let sideways = tree(&[("src/mux/driver.rs", "//! d\nuse crate::identity::PeerId;")]);
        one(&reaching_up(&sideways, &table(TABLE)), "of src/identity/");
        let forbidden = tree(&[("src/tls/x.rs", "//! x\nuse super::super::mux::Config;")]);
        one(&reaching_up(&forbidden, &table(TABLE)), "of src/mux/");
    }

    #[test]
    fn reaching_up_through_the_crates_root_is_found() {
        let through = tree(&[("src/tls/x.rs", "//! x\nuse crate::Stack;")]);
        one(&reaching_up(&through, &table(TABLE)), "of src/stack.rs");
        let from_below = tree(&[("transports/src/x.rs", "//! x\nuse cepa::mux::Config;")]);
        one(&reaching_up(&from_below, &table(TABLE)), "of src/mux/");
    }

    #[test]
    fn a_file_without_a_floor_is_found() {
        one(
            &reaching_up(&tree(&[("src/loose.rs", "//! l")]), &table(TABLE)),
            "src/loose.rs: has no floor",
        );
    }

    #[test]
    fn a_table_that_contradicts_itself_is_found() {
        let wrong = TABLE.replace("| streams | - |", "| streams | `src/tls/` |");
        one(
            &reaching_up(&tree(&[]), &table(&wrong)),
            "which is not below it",
        );
        let empty = format!("{TABLE}| 5 | `src/node/` | peers | all below |\n");
        one(&reaching_up(&tree(&[]), &table(&empty)), "no file is there");
    }

    #[test]
    fn tests_and_prose_may_name_what_stands_above() {
        let fine = tree(&[
            ("src/mux/tests.rs", "//! t\nuse crate::tls::Peer;"),
            (
                "src/mux/driver.rs",
                "//! see [`crate::tls`]\n#[cfg(test)]\nmod t { use crate::tls::Peer; }",
            ),
        ]);
        assert_eq!(reaching_up(&fine, &table(TABLE)), Vec::<String>::new());
    }

    #[test]
    fn rings_are_found_once() {
        let two = tree(&[
            ("src/mux/a.rs", "//! a\nuse super::b::B;"),
            ("src/mux/b.rs", "//! b\nfn f() { super::a::g(); }"),
        ]);
        one(&rings(&two), "src/mux/a.rs -> src/mux/b.rs -> src/mux/a.rs");
        let three = tree(&[
            ("src/mux/a.rs", "//! a\nuse super::b::B;"),
            ("src/mux/b.rs", "//! b\nuse super::c::C;"),
            ("src/mux/c.rs", "//! c\nuse crate::mux::a::A;"),
        ]);
        one(
            &rings(&three),
            "ring: src/mux/a.rs -> src/mux/b.rs -> src/mux/c.rs -> src/mux/a.rs",
        );
    }

    #[test]
    fn engines_with_io_or_a_clock_are_found() {
        let engine = |body: &str| {
            let text = format!("//! e\n{body}");
            impure_engines(&tree(&[("src/mux/engine.rs", &text)]))
        };
        one(&engine("use tokio::io::AsyncRead;"), "names tokio");
        one(
            &engine("use std::{net::TcpStream, time::Duration};"),
            "names std::net",
        );
        one(
            &engine("use std::io; fn f() { io::stdout().flush(); }"),
            "io::stdout",
        );
        one(&engine("use std::thread::sleep;"), "names std::thread");
        assert!(engine("use std::net::IpAddr; fn f(a: IpAddr) {}").is_empty());
        assert!(engine("use std::io::{self, IoSlice}; fn f() -> io::Result<()> {}").is_empty());
        one(
            &engine("fn f() { let now = std::time::Instant::now(); }"),
            "Instant::now",
        );
        one(
            &engine("use std::time::Instant as Clock; fn f() { Clock::now(); }"),
            "Instant::now",
        );
        one(&engine("use std::time::SystemTime;"), "SystemTime");
        one(
            &engine("fn f(s: Instant) -> Duration { s.elapsed() }"),
            "elapsed()",
        );
        assert!(engine("use std::time::{Duration, Instant}; fn f(now: Instant) {}").is_empty());
    }

    #[test]
    fn an_engine_can_not_borrow_a_clock_from_its_neighbour() {
        let borrowed = tree(&[
            ("src/mux/engine.rs", "//! e\nuse super::when::when;"),
            (
                "src/mux/when.rs",
                "//! w\nuse std::time::Instant;\nfn when() { Instant::now(); }",
            ),
        ]);
        one(
            &impure_engines(&borrowed),
            "src/mux/when.rs:3: names std::time::Instant::now (used by src/mux/engine.rs)",
        );
    }

    #[test]
    fn rustls_connections_live_in_one_file() {
        let elsewhere = tree(&[
            (
                CONNECTIONS_LIVE_IN,
                "//! s\nuse rustls::{ClientConnection, Connection};",
            ),
            (
                "src/tls/x.rs",
                "//! x\nuse rustls::client::ClientConnection;",
            ),
            ("src/tls/y.rs", "//! y\nfn f(c: rustls::Connection) {}"),
        ]);
        let broken = connections_elsewhere(&elsewhere);
        assert_eq!(broken.len(), 2, "{broken:#?}");
    }

    #[test]
    fn headless_and_long_files_are_found() {
        let long = "//! l\n".to_owned() + &"fn f() {}\n".repeat(MOST_LINES);
        let tested = format!(
            "//! l\n#[cfg(test)]\nmod t {{\n{}}}\n",
            "fn f() {}\n".repeat(MOST_LINES)
        );
        one(
            &heads_and_sizes(&tree(&[("src/mux/x.rs", &long)])),
            "601 lines",
        );
        one(
            &heads_and_sizes(&tree(&[("examples/x.rs", "fn main() {}")])),
            "examples/x.rs: does not open",
        );
        let fine = [
            ("src/mux/x.rs", tested.as_str()),
            ("src/mux/tests.rs", long.as_str()),
        ];
        assert!(heads_and_sizes(&tree(&fine)).is_empty());
    }
}
