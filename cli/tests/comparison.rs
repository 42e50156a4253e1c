//! docs/COMPARISON.md: its table is counted again from the commands that stand below it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use cepa::identity::{Identity, KeyKind};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COMPARISON.md");

/// How long a shortened word is when it is whole, as the second table of the file has it.
fn lengths(text: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if let [_, words, _, length, _] = cells[..] {
            let length = length.parse().unwrap();
            let words = words.split(", ").map(|word| word.trim_matches('`'));
            all.extend(words.map(|word| (word.to_owned(), length)));
        }
    }
    all
}

/// The characters of a line, with whole words in the place of shortened ones.
fn characters(line: &str, lengths: &BTreeMap<String, usize>) -> usize {
    let mut count = line.chars().count();
    let mut rest = line.to_owned();
    for (short, length) in lengths {
        let times = rest.matches(short.as_str()).count();
        count = count + times * length - times * short.chars().count();
        rest = rest.replace(short.as_str(), "");
    }
    assert!(!rest.contains('…'), "how long is it? {rest}");
    count
}

/// What somebody types with one tool: commands, and characters.
#[derive(Default)]
struct Count {
    tool: String,
    commands: usize,
    characters: usize,
}

/// The words of a heading, without its links.
fn plain(heading: &str) -> String {
    let mut words = String::new();
    for (at, piece) in heading.split("](").enumerate() {
        let piece = if at == 0 {
            piece
        } else {
            piece.split_once(')').unwrap().1
        };
        words.push_str(&piece.replace('[', ""));
    }
    words
}

fn counts(text: &str) -> Vec<(String, Vec<Count>)> {
    let lengths = lengths(text);
    let (mut jobs, mut block) = (Vec::<(String, Vec<Count>)>::new(), None);
    for line in text.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            block = (block.is_none()).then_some(fence);
        } else if let Some(job) = line.strip_prefix("## ") {
            let job = job.split_once(". ").unwrap().1;
            jobs.push((job.to_owned(), Vec::new()));
        } else if let Some(tool) = line.strip_prefix("### ") {
            jobs.last_mut().unwrap().1.push(Count {
                tool: plain(tool),
                ..Count::default()
            });
        } else if let Some(kind) = block {
            let count = jobs.last_mut().unwrap().1.last_mut().unwrap();
            let typed = match (kind, line.split_once("$ "), line.split_once("> ")) {
                ("sh", Some((_, command)), _) => {
                    count.commands += 1;
                    command
                }
                ("sh", None, Some((_, answer))) => answer,
                ("sh", None, None) => panic!("no prompt in {line:?}"),
                _ => line,
            };
            count.characters += characters(typed, &lengths);
        }
    }
    jobs
}

#[test]
fn the_table_is_what_the_commands_below_it_come_to() {
    let text = fs::read_to_string(FILE).unwrap();
    let mut rows = String::new();
    for (job, counts) in counts(&text) {
        let [cepa, rival] = &counts[..] else {
            panic!("{job}: cepa and one other");
        };
        assert_eq!(cepa.tool, "cepa");
        let (tool, commands, characters) = (&rival.tool, rival.commands, rival.characters);
        let _ = writeln!(
            rows,
            "| {job} | cepa | {} | {} | {tool} | {commands} | {characters} |",
            cepa.commands, cepa.characters
        );
    }
    assert!(rows.lines().count() >= 5);
    assert!(text.contains(&rows), "the rows have to be:\n{rows}");
}

#[test]
fn an_id_is_as_long_as_the_file_says() {
    let lengths = lengths(&fs::read_to_string(FILE).unwrap());
    let id = Identity::generate(KeyKind::Ed25519).unwrap().peer_id();
    assert_eq!(lengths["ab2…"], id.to_string().len());
    assert_eq!(lengths["cd4…"], id.to_string().len());
}

#[test]
fn shortened_words_count_whole() {
    let lengths = BTreeMap::from([("ab2…".to_owned(), 52)]);
    assert_eq!(characters("cepa x ab2… ab2…", &lengths), 7 + 52 + 1 + 52);
    assert_eq!(
        plain("[pppd](https://x/y) and [ssh](https://z)"),
        "pppd and ssh"
    );
}
