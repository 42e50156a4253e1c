//! The walks of README.md, docs/COOKBOOK.md and other documents, and cepa's side of docs/COMPARISON.md, run as they stand there: each command is given to a shell on a machine of its own, with
//! the document's ports, paths and names, in the document's order. Only what the document shortens (`ab2…`) is put in. What this
//! machine has not is stood in for: `ssh` and `docker exec` start their command on the other machine without a network between,
//! `sudo` is root already, `systemctl` reads the unit as much as the walk needs it.

#[path = "../common/mod.rs"]
mod common;
mod comparison;
mod cookbook;
mod docs;
mod document;
mod machines;
mod readme;

/// Each walk ends with its last command run; this says that no command stands outside of them.
#[test]
fn every_command_with_a_prompt_is_on_a_walk() {
    let walks = [
        ("README.md", readme::WALKS),
        ("docs/COOKBOOK.md", cookbook::WALKS),
    ];
    for (file, walks) in walks.iter().chain(docs::WALKS) {
        let walked = walks
            .iter()
            .map(|(from, to)| document::Walk::between(file, from, to).len());
        let all = document::Walk::between(file, "# ", "no such line").len();
        assert_eq!(walked.sum::<usize>(), all, "{file}");
    }
}
