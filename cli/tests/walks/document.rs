//! A walk is a section of a document: its commands in the order in which they stand there, each with the machine whose prompt it has.
//!
//! What the document can't know in advance (ids, codes) it writes short: `ab2…`. A test says what each of these stands for
//! when a machine has printed it; one that nobody has printed yet is an error, and so is a command that was not run.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::machines::{Job, Machine};

/// One command, as it stands in the document.
#[derive(Debug)]
struct Step {
    machine: String,
    text: String,
}

pub(crate) struct Walk {
    steps: VecDeque<Step>,
    /// The section as it stands there.
    pub(crate) section: String,
    known: Vec<(String, String)>,
    place: String,
}

impl Walk {
    /// The part of the document from the line that begins with the first of these to before the line that begins with the second.
    pub(crate) fn between(file: &str, from: &str, to: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let lines = text.lines().skip_while(|line| !line.starts_with(from));
        let mut section = String::new();
        for (at, line) in lines.enumerate() {
            if at > 0 && line.starts_with(to) {
                break;
            }
            section.push_str(line);
            section.push('\n');
        }
        assert!(!section.is_empty(), "{file} has no line {from:?}");
        let steps = steps(&section);
        assert!(!steps.is_empty(), "{file}: no command below {from:?}");
        Self {
            steps,
            section,
            known: Vec::new(),
            place: format!("{file}, {from:?}"),
        }
    }

    /// How many commands it has.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The section with this heading.
    pub(crate) fn section(file: &str, heading: &str) -> Self {
        Self::between(file, heading, "## ")
    }

    /// From now on `short` in a command is this; the document shortens it at its end.
    pub(crate) fn learn(&mut self, short: &str, whole: &str) {
        let beginning = short.strip_suffix('…').unwrap();
        assert!(!beginning.is_empty());
        self.known.retain(|(known, _)| known != short);
        self.known.push((short.to_owned(), whole.to_owned()));
    }

    /// With whole ids and codes.
    #[track_caller]
    pub(crate) fn whole(&self, text: &str) -> String {
        let mut whole = text.to_owned();
        for (short, long) in &self.known {
            whole = whole.replace(short, long);
        }
        assert!(
            !whole.contains('…'),
            "{}: nobody has printed what is short here: {whole}",
            self.place
        );
        whole
    }

    /// The next command, which must be one of this machine's.
    #[track_caller]
    pub(crate) fn next(&mut self, machine: &Machine) -> String {
        let step = self.steps.pop_front();
        let step = step.unwrap_or_else(|| panic!("{}: no further command", self.place));
        assert_eq!(step.machine, machine.name, "{}: {step:?}", self.place);
        self.whole(&step.text)
    }

    /// Runs the next command to its end, which must be a success.
    #[track_caller]
    pub(crate) fn run(&mut self, machine: &Machine) -> String {
        let command = self.next(machine);
        machine.run(&command)
    }

    /// Starts the next command, which stays, and waits until it says this.
    #[track_caller]
    pub(crate) fn start(&mut self, machine: &Machine, up: &str) -> Job {
        let command = self.next(machine);
        let mut job = machine.start(&command);
        job.line(up);
        job
    }

    /// A command that stands in the text of the section, with the words that it is found by there.
    #[track_caller]
    pub(crate) fn said(&self, command: &str) -> String {
        let quoted = format!("`{command}`");
        assert!(
            self.section.contains(&quoted),
            "{}: no {quoted}",
            self.place
        );
        self.whole(command)
    }

    /// The only block of this language.
    #[track_caller]
    pub(crate) fn block(&self, language: &str) -> String {
        let fence = format!("```{language}\n");
        let mut found = self.section.split(&fence).skip(1);
        let block = found.next().and_then(|rest| rest.split("```").next());
        assert!(found.next().is_none(), "{}: several {fence}", self.place);
        self.whole(block.unwrap_or_else(|| panic!("{}: no {fence}", self.place)))
    }

    /// Every command was run.
    #[track_caller]
    pub(crate) fn end(self) {
        assert!(
            self.steps.is_empty(),
            "{}: {:?} was not run",
            self.place,
            self.steps
        );
    }
}

/// The prompt in front of a line: `home$ …` is one of the machine `home`.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (machine, command) = line.split_once("$ ")?;
    let is_name = !machine.is_empty() && machine.chars().all(|c| c.is_ascii_lowercase());
    is_name.then(|| (machine, command.trim_start()))
}

/// Without the comment of a document, which stands two columns behind or further.
fn without_comment(line: &str) -> &str {
    line.split("  # ").next().unwrap_or(line).trim_end()
}

/// The commands of all blocks of shell; lines that go on (`\`) are left as they are, for a shell to read.
fn steps(section: &str) -> VecDeque<Step> {
    let (mut steps, mut shell, mut open) = (VecDeque::<Step>::new(), false, false);
    for line in section.lines() {
        if line.starts_with("```") {
            (shell, open) = (line == "```sh", false);
            continue;
        }
        if !shell {
            continue;
        }
        if open {
            let last = steps.back_mut().unwrap();
            last.text.push('\n');
            last.text.push_str(without_comment(line));
        } else if let Some((machine, command)) = prompt(line) {
            steps.push_back(Step {
                machine: machine.to_owned(),
                text: without_comment(command).to_owned(),
            });
        }
        open = line.ends_with('\\') && (open || prompt(line).is_some());
    }
    steps
}

#[test]
fn commands_are_found_with_their_machines() {
    let text = "cepa no\n```sh\nhome$   cepa a \\\n    -b\n# no\n        # neither\nann$ x 'y$ z'   # that: ab2…\n```\nbob$ no\n";
    let found: Vec<_> = steps(text)
        .into_iter()
        .map(|step| (step.machine, step.text))
        .collect();
    let expected = [("home", "cepa a \\\n    -b"), ("ann", "x 'y$ z'")];
    assert_eq!(
        found,
        expected.map(|(machine, text)| (machine.to_owned(), text.to_owned()))
    );
}
