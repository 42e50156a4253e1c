//! Each command in the documents is one that this version takes: the words of every `cepa …` in a block of shell are read as the
//! tool reads them. Ids and codes that a document shortens (`ab2…`) stand for whole ones here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cepa::identity::{Identity, KeyKind};
use clap::Parser as _;

use super::Cli;

/// One that was printed once, of a peer that is gone.
const TICKET: &str = "cepa-ticket:AQvQJDTNFoNxBbN_NDxCFoBHaad-wYpvz_FDVAvb5hgvQo_lqeTm94s4pLxxumEU1msOKbYEfwAAAR5hQuSXBQ";

/// The logical lines of the blocks of shell in a text, each with its line number.
fn commands(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut shell, mut open) = (Vec::<(usize, String)>::new(), false, false);
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            shell = line == "```sh";
            open = false;
            continue;
        }
        if !shell {
            continue;
        }
        let (piece, goes_on) = match line.trim_end().strip_suffix('\\') {
            Some(piece) => (piece, true),
            None => (line, false),
        };
        match found.last_mut().filter(|_| open) {
            Some((_, command)) => command.push_str(piece),
            None => found.push((at + 1, piece.to_owned())),
        }
        open = goes_on;
    }
    found
}

/// The words of a shell's line up to a redirection, a pipe, a comment or another command. Quotes take what is in them as it is.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '<' | '>' | '|' | '&' | ';') => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whole ids for shortened ones: the same for the same.
#[derive(Default)]
struct Ids(BTreeMap<String, String>);

impl Ids {
    fn whole(&mut self, word: &str) -> String {
        // What only somebody else can make, and what only shows that more may follow.
        if word.starts_with("ticket:") {
            return TICKET.into();
        }
        if word.starts_with("cepa-") && word.contains('…') {
            return "tcp:127.0.0.1:7000".into();
        }
        // Nobody is known here by a name.
        if let Some(named) = word.strip_prefix('@') {
            let (name, path) = named.split_once(':').unwrap_or((named, ""));
            let path = if path.is_empty() {
                path.to_owned()
            } else {
                format!("/{path}")
            };
            return self.whole(&format!("cepa://{name}…@tcp:127.0.0.1:7000{path}"));
        }
        let mut whole = String::new();
        for (at, piece) in word.split('…').enumerate() {
            if at > 0 {
                let start = whole
                    .trim_end_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    .len();
                let short = whole.split_off(start);
                let id = self.0.entry(short).or_insert_with(|| {
                    let identity = Identity::generate(KeyKind::Ed25519).unwrap();
                    identity.peer_id().to_string()
                });
                whole.push_str(id);
            }
            whole.push_str(piece);
        }
        whole
    }
}

fn check(words: &[String], place: &str, ids: &mut Ids, checked: &mut usize) {
    // `laptop$ cepa …`, `sudo cepa …`.
    let Some(at) = words.iter().position(|word| word == "cepa") else {
        return;
    };
    let given = words[at + 1..].iter().filter(|word| *word != "…");
    let mut allow = false;
    let given = given.map(|word| {
        let whole = ids.whole(word);
        // A person who is allowed has no address.
        let allowed = std::mem::replace(&mut allow, word == "--allow");
        match whole.strip_prefix("cepa://").filter(|_| allowed) {
            Some(who) => who.split('@').next().unwrap_or(who).to_owned(),
            None => whole,
        }
    });
    let given: Vec<String> = given.collect();
    // The first is the program itself.
    let all = std::iter::once("cepa").chain(given.iter().map(String::as_str));
    if let Err(error) = Cli::try_parse_from(all)
        && error.use_stderr()
    {
        panic!("{place}: cepa {}: {error}", given.join(" "));
    }
    *checked += 1;
    // One that is started at the other end.
    for word in &given {
        if let Some((_, command)) = word.split_once("exec:")
            && command.contains(" cepa ")
        {
            check(&self::words(command), place, ids, checked);
        }
    }
}

#[test]
fn every_command_in_the_documents_is_one_that_the_tool_takes() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    files.extend(docs.map(|file| file.unwrap().path()));
    files.retain(|file| file.extension().is_some_and(|end| end == "md"));
    let (mut ids, mut checked) = (Ids::default(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (line, command) in commands(&text) {
            let place = format!("{}:{line}", file.file_name().unwrap().to_string_lossy());
            check(&words(&command), &place, &mut ids, &mut checked);
        }
    }
    assert!(checked >= 60, "only {checked} commands were found");
}
