//! The floors of the house, enforced: what ARCHITECTURE.md says about who may use whom is read from
//! its table and held against the sources.
//!
//! `tree` reads the sources and finds the file that a path means, `rules` judge. Each rule is tested on
//! made-up sources that break it, so that none can pass by seeing nothing.

mod rules;
mod tests;
mod tree;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tree::Tree;

/// Where the workspace keeps Rust files of its own.
const FOLDERS: [&str; 9] = [
    "src",
    "transports",
    "fleet",
    "cli",
    "examples",
    "benches",
    "tests",
    "fuzz/fuzz_targets",
    "docs",
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<_> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder that can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file that can be read");
                let place = path.strip_prefix(root).expect("a path below the root");
                found.push((place.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    found
}

/// Read once, judged by every test.
static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let sources = sources();
    assert!(
        sources.len() > 10,
        "only {} sources found: looking in the wrong place",
        sources.len()
    );
    Tree::new(
        sources
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str())),
    )
});

fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n  {}\n", broken.join("\n  "));
}

#[test]
fn no_file_reaches_up() {
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let rooms = rules::table(&fs::read_to_string(plan).expect("ARCHITECTURE.md"));
    assert!(
        rooms.len() > 5,
        "the table of floors in ARCHITECTURE.md was not found: {rooms:?}"
    );
    none(&rules::reaching_up(&TREE, &rooms));
}

#[test]
fn no_two_files_import_each_other() {
    none(&rules::rings(&TREE));
}

#[test]
fn engines_have_no_io_and_no_clock() {
    none(&rules::impure_engines(&TREE));
}

#[test]
fn one_file_names_rustls_connections() {
    none(&rules::connections_elsewhere(&TREE));
}

#[test]
fn files_open_with_their_reason_and_stay_small() {
    none(&rules::heads_and_sizes(&TREE));
}
