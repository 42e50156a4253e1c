//! The rules of the house, each a function from the sources to sentences about what breaks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tree::{File, Tree};

/// Files with more lines than this hide two rooms in one; test code is not counted.
pub(crate) const MOST_LINES: usize = 600;

/// One row of the table in ARCHITECTURE.md.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) floor: u8,
    /// Folders, with `/` at their ends, and files. The first is the room's name.
    pub(crate) places: Vec<String>,
    /// Names of rooms that it may use; `all below` in the table stands for every room of a lower floor.
    pub(crate) may_use: Vec<String>,
}

impl Room {
    fn name(&self) -> &str {
        &self.places[0]
    }
}

/// Reads the rows `| floor | places | owns | may use |`, whose floor is a number.
pub(crate) fn table(markdown: &str) -> Vec<Room> {
    let mut rooms = Vec::<Room>::new();
    let mut names = Vec::new();
    for line in markdown.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, floor, places, _, may_use, _] = cells[..] else {
            continue;
        };
        let (Ok(floor), places) = (floor.parse(), quoted(places)) else {
            continue;
        };
        names.push((floor, places[0].clone()));
        let may_use = match may_use {
            "all below" => vec![may_use.to_owned()],
            _ => quoted(may_use),
        };
        rooms.push(Room {
            floor,
            places,
            may_use,
        });
    }
    for room in rooms
        .iter_mut()
        .filter(|room| room.may_use == ["all below"])
    {
        let below = names.iter().filter(|(floor, _)| *floor < room.floor);
        room.may_use = below.map(|(_, name)| name.clone()).collect();
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

fn holds(place: &str, path: &str) -> bool {
    path == place || (place.ends_with('/') && path.starts_with(place))
}

/// The room whose place is the narrowest around a file.
fn room_of<'a>(rooms: &'a [Room], path: &str) -> Option<&'a Room> {
    let places = rooms
        .iter()
        .flat_map(|room| room.places.iter().map(move |place| (place, room)));
    let around = places.filter(|(place, _)| holds(place, path));
    around
        .max_by_key(|(place, _)| place.len())
        .map(|(_, room)| room)
}

/// No file reaches up, or sideways where the table does not say so.
pub(crate) fn reaching_up(tree: &Tree, rooms: &[Room]) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for room in rooms {
        let name = room.name();
        let empty = |place: &&String| !tree.built().any(|file| holds(place, &file.path));
        for place in room.places.iter().filter(empty) {
            broken.insert(format!(
                "{place}: in the table of floors, but no file is there"
            ));
        }
        for used in &room.may_use {
            match rooms.iter().find(|other| other.name() == used) {
                None => broken.insert(format!("{name}: may use {used}, which is no room")),
                Some(other) if other.floor >= room.floor => {
                    broken.insert(format!("{name}: may use {used}, which is not below it"))
                }
                Some(_) => continue,
            };
        }
    }
    for file in tree.built() {
        let Some(room) = room_of(rooms, &file.path) else {
            broken.insert(format!(
                "{}: has no floor; give it one in ARCHITECTURE.md",
                file.path
            ));
            continue;
        };
        for (path, line) in &file.mentions {
            let other = tree
                .target(path)
                .and_then(|target| room_of(rooms, &target.path));
            let Some(other) = other.filter(|other| *other != room) else {
                continue;
            };
            if !room.may_use.iter().any(|used| used == other.name()) {
                broken.insert(format!(
                    "{}:{line}: {} (floor {}) uses {} of {} (floor {})",
                    file.path,
                    room.name(),
                    room.floor,
                    path.join("::"),
                    other.name(),
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
    for file in tree.built() {
        let targets = file
            .mentions
            .iter()
            .filter_map(|(path, _)| tree.target(path));
        let others = targets
            .map(|other| other.path.as_str())
            .filter(|other| *other != file.path);
        uses.insert(&file.path, others.collect());
    }
    // The shortest way from each file back to itself; each ring is told once, from its first file.
    let mut broken = BTreeSet::new();
    for start in uses.keys() {
        let mut came_from = BTreeMap::<&str, &str>::new();
        let mut waiting = VecDeque::from([*start]);
        while let Some(at) = waiting.pop_front() {
            for next in uses.get(at).into_iter().flatten() {
                came_from.entry(next).or_insert_with(|| {
                    waiting.push_back(next);
                    at
                });
            }
        }
        let Some(last) = came_from.get(start) else {
            continue;
        };
        let mut ring = vec![*start, *last];
        while ring.last() != Some(start) {
            ring.push(came_from[ring[ring.len() - 1]]);
        }
        ring.reverse();
        if ring.iter().min() == Some(start) {
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
    let mut broken = BTreeMap::<(&str, usize), String>::new();
    let folder = |file: &File| {
        file.path
            .rsplit_once('/')
            .map(|(folder, _)| folder.to_owned())
    };
    let engines = tree.built().filter(|file| {
        file.path.ends_with("/engine.rs") || file.path.split('/').any(|part| part == "engine")
    });
    for engine in engines {
        let mut seen = BTreeSet::from([engine.path.as_str()]);
        let mut waiting = vec![engine];
        while let Some(file) = waiting.pop() {
            let own = file.path == engine.path;
            let mut notify = |line: usize, what: &str| {
                let reported = broken.entry((&file.path, line)).or_default();
                if own {
                    *reported = format!("{}:{line}: {what}", file.path);
                } else if reported.is_empty() {
                    *reported = format!("{}:{line}: {what} (used by {})", file.path, engine.path);
                }
            };
            for (path, line) in &file.mentions {
                let parts: Vec<&str> = path.iter().map(String::as_str).collect();
                let first = NOT_IN_ENGINES.iter().any(|bad| parts.starts_with(bad))
                    && !IN_ENGINES.iter().any(|good| parts.starts_with(good));
                if parts == [".", "elapsed"] {
                    notify(*line, "reads a clock by elapsed()");
                }
                let within = |bad: &&[&str]| parts.windows(bad.len()).any(|part| part == *bad);
                if first || NOT_IN_ENGINES_AT_ALL.iter().any(within) {
                    notify(*line, &format!("names {}", path.join("::")));
                }
                let beside = tree
                    .target(path)
                    .filter(|next| folder(next) == folder(engine));
                waiting.extend(beside.filter(|next| seen.insert(&next.path)));
            }
        }
    }
    broken.into_values().collect()
}

/// The one file that names rustls's connections, so that its next API is one file's change.
const CONNECTIONS_LIVE_IN: &str = "src/tls/connection.rs";
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
    let library = |file: &&File| file.path.starts_with("src/") && file.path != CONNECTIONS_LIVE_IN;
    for file in tree.built().filter(library) {
        let named = file.mentions.iter().filter(|(path, _)| {
            path.iter().any(|part| CONNECTIONS.contains(&part.as_str()))
                || path[0] == "rustls" && path.ends_with(&["Connection".to_owned()])
        });
        broken.extend(
            named.map(|(path, line)| format!("{}:{line}: names {}", file.path, path.join("::"))),
        );
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
