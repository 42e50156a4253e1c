//! Knows which file a path in the source means.
//!
//! A file's module is read off its place on disk. A mentioned path (`crate::tls::Peer`, `super::wire`,
//! `cepa_transports::Endpoint`, a `use` tree, or the bare name of a child module) is walked down the
//! modules as far as they go. Where the next name is one that the file reached re-exports with
//! `pub use`, the walk goes on from there: a name counts for the file that defines it, not for the
//! signpost that shows it, so a lower floor can not reach up by way of the crate's root.
//!
//! A `pub use` alone is a signpost and no dependency, unless the file then uses the name itself. So is
//! the `use` of a whole module: what counts is what is then reached through it.

use std::collections::{BTreeMap, BTreeSet};

use crate::lex::{Token, lex};

/// The crates of the workspace: the name in paths, and the folder of its sources.
pub(crate) const CRATES: [(&str, &str); 3] = [
    ("cepa", "src"),
    ("cepa_transports", "transports/src"),
    ("cepa_cli", "cli/src"),
];

/// A path as written, resolved as far as `use` trees go, with the line where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

pub(crate) struct File {
    pub(crate) path: String,
    /// Lines that are not tests'.
    pub(crate) lines: usize,
    pub(crate) has_head: bool,
    pub(crate) is_test: bool,
    pub(crate) tokens: Vec<Token>,
    /// The crate's name and the modules under it; empty for examples, benches and tests.
    pub(crate) module: Vec<String>,
    /// Paths in code and in private `use`, and in `pub use` of a name that the file uses too.
    pub(crate) mentions: Vec<Mention>,
    /// What `pub use` shows: the name, and the path behind it (`*` for all of it).
    shown: Vec<(String, Vec<String>)>,
}

pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, File>,
    by_module: BTreeMap<Vec<String>, String>,
}

impl Tree {
    /// `sources` are pairs of a path, relative to the workspace and with `/`, and its text.
    pub(crate) fn new<'a>(sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut files = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for (path, text) in sources {
            let lexed = lex(text);
            let module = module_of(path);
            for name in &lexed.test_modules {
                tests.insert(joined(&module, name));
            }
            let (mentions, shown) = paths(&lexed.tokens);
            let file = File {
                path: path.to_owned(),
                lines: text.lines().count() - lexed.test_lines.min(text.lines().count()),
                has_head: has_head(text),
                is_test: path
                    .split('/')
                    .any(|part| part == "tests" || part == "tests.rs"),
                tokens: lexed.tokens,
                module,
                mentions,
                shown,
            };
            files.insert(path.to_owned(), file);
        }
        for file in files.values_mut() {
            file.is_test |= tests.iter().any(|test| file.module.starts_with(test));
        }
        let by_module = files
            .values()
            .filter(|f| !f.module.is_empty())
            .map(|f| (f.module.clone(), f.path.clone()))
            .collect();
        Self { files, by_module }
    }

    /// The file inside the workspace that a path mentioned in `from` means.
    pub(crate) fn target(&self, from: &File, path: &[String]) -> Option<&File> {
        let absolute = self.absolute(from, path)?;
        if self.by_module.contains_key(&absolute) {
            return None; // a module as a whole
        }
        self.walk(&absolute, 0)
    }

    /// The path from the crate's name on, or `None` when it leads out of the workspace.
    fn absolute(&self, from: &File, path: &[String]) -> Option<Vec<String>> {
        let mut path = path.to_vec();
        let mut base = from.module.clone();
        let first = path.first()?.clone();
        match first.as_str() {
            "crate" => {
                base.truncate(1);
                path.remove(0);
            }
            "self" => {
                path.remove(0);
            }
            "super" => {
                while path.first().is_some_and(|part| part == "super") {
                    base.pop();
                    path.remove(0);
                }
            }
            name if CRATES.iter().any(|(known, _)| *known == name) => base.clear(),
            name => {
                if !self.by_module.contains_key(&joined(&base, name)) {
                    return None;
                }
            }
        }
        base.extend(path);
        Some(base)
    }

    fn walk(&self, path: &[String], hops: usize) -> Option<&File> {
        let mut depth = path.len();
        let reached = loop {
            if depth == 0 {
                return None;
            }
            if let Some(found) = self.by_module.get(&path[..depth]) {
                break self.files.get(found)?;
            }
            depth -= 1;
        };
        // Re-exports could point at each other; nobody hops eight times.
        let next = path.get(depth).filter(|_| hops < 8);
        let behind = next.and_then(|name| {
            let (_, shown) = reached.shown.iter().find(|(shown, _)| shown == name)?;
            let mut further = self.absolute(reached, shown)?;
            further.extend_from_slice(&path[depth + 1..]);
            self.walk(&further, hops + 1)
        });
        Some(behind.unwrap_or(reached))
    }
}

fn joined(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn has_head(text: &str) -> bool {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    lines
        .next()
        .is_some_and(|line| line.trim_start().starts_with("//!"))
}

fn module_of(path: &str) -> Vec<String> {
    for (name, folder) in CRATES {
        let Some(rest) = path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        let mut module = vec![name.to_owned()];
        module.extend(rest.trim_end_matches(".rs").split('/').map(str::to_owned));
        if module.last().is_some_and(|last| last == "mod")
            || (module.len() == 2 && matches!(module[1].as_str(), "lib" | "main"))
        {
            module.pop();
        }
        return module;
    }
    Vec::new()
}

/// Every path that a file mentions, and what it shows with `pub use`.
fn paths(tokens: &[Token]) -> (Vec<Mention>, Vec<(String, Vec<String>)>) {
    let mut mentions = Vec::new();
    let mut shown: Vec<(String, Mention)> = Vec::new();
    // What a name at the start of a path stands for.
    let mut imported = BTreeMap::<String, Vec<String>>::new();
    let mut names = BTreeMap::<&str, usize>::new();
    // Where the braces of the inline modules around this place were opened: `super` counts from the
    // innermost of them.
    let mut inline = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].text.as_str();
        match word {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|opened| *opened < depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t.text == "{") => inline.push(depth),
            _ => {}
        }
        // `+ use<'a>` names what a return type captures: no import.
        if word == "use" && tokens.get(at + 1).is_some_and(|t| t.text != "<") {
            let public = is_public(&tokens[..at]);
            let mut leaves = Vec::new();
            at = use_tree(tokens, at + 1, &[], &mut leaves);
            for (name, mut mention) in leaves {
                mention.path = outside_of(mention.path, inline.len());
                imported.insert(name.clone(), mention.path.clone());
                if public {
                    shown.push((name, mention));
                } else {
                    mentions.push(mention);
                }
            }
            continue;
        }
        if !is_name(word) {
            at += 1;
            continue;
        }
        let line = tokens[at].line;
        let mut path = vec![word.to_owned()];
        *names.entry(word).or_default() += 1;
        while tokens.get(at + 1).is_some_and(|t| t.text == "::")
            && tokens.get(at + 2).is_some_and(|t| is_name(&t.text))
        {
            path.push(tokens[at + 2].text.clone());
            at += 2;
        }
        // A path that goes on in a turbofish or a group ends here for our purpose.
        if path.len() > 1 {
            mentions.push(Mention {
                path: outside_of(path, inline.len()),
                line,
            });
        }
        at += 1;
    }
    for mention in &mut mentions {
        if let Some(path) = imported.get(&mention.path[0])
            && *path != mention.path
        {
            mention.path.splice(..1, path.iter().cloned());
        }
    }
    for (name, mention) in &shown {
        if names.contains_key(name.as_str()) {
            mentions.push(mention.clone());
        }
    }
    (
        mentions,
        shown
            .into_iter()
            .map(|(name, mention)| (name, mention.path))
            .collect(),
    )
}

/// A path as it would be written outside of the `inline` modules around it; `self` for one of those.
fn outside_of(mut path: Vec<String>, inline: usize) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    if supers > 0 && supers <= inline {
        return vec!["self".to_owned()];
    }
    path.drain(..supers.min(inline));
    path
}

fn is_name(word: &str) -> bool {
    word.chars()
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Whether `pub` or `pub(…)` stands right before.
fn is_public(before: &[Token]) -> bool {
    let mut words = before.iter().rev().map(|t| t.text.as_str());
    match words.next() {
        Some("pub") => true,
        Some(")") => words.find(|&word| word == "(").and_then(|_| words.next()) == Some("pub"),
        _ => false,
    }
}

/// Reads one tree of a `use`, from after `use`, a brace or a comma; returns the place behind it.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    leaves: &mut Vec<(String, Mention)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut name = None;
    let line = tokens.get(at).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => {}
            "{" => {
                at += 1;
                while tokens
                    .get(at)
                    .is_some_and(|t| t.text != "}" && t.text != ";")
                {
                    at = use_tree(tokens, at, &path, leaves);
                    if tokens.get(at).is_some_and(|t| t.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => {
                at += 1;
                name = tokens.get(at).map(|t| t.text.clone());
            }
            "," | "}" | ";" => break,
            "self" if path.len() > prefix.len() || !prefix.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    leaves.push((name, Mention { path, line }));
    at
}

#[cfg(test)]
mod tests {
    use super::Tree;

    fn reached(sources: &[(&str, &str)], from: &str) -> Vec<String> {
        let tree = Tree::new(sources.iter().copied());
        let file = &tree.files[from];
        let mut all: Vec<String> = file
            .mentions
            .iter()
            .filter_map(|m| tree.target(file, &m.path))
            .map(|f| f.path.clone())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn trees_of_use_paths_in_code_and_child_modules_are_found() {
        let sources = [
            ("src/lib.rs", "pub mod a; pub mod b;"),
            (
                "src/a/mod.rs",
                "mod c; use crate::b::{self, d::{E, F as G}}; fn x() { c::y(b::z()); }",
            ),
            (
                "src/a/c.rs",
                "fn y() -> super::Z { crate::b::d::f::<u8>() }",
            ),
            ("src/b/mod.rs", ""),
            ("src/b/d.rs", ""),
        ];
        assert_eq!(
            reached(&sources, "src/a/mod.rs"),
            ["src/a/c.rs", "src/b/d.rs", "src/b/mod.rs"]
        );
        assert_eq!(
            reached(&sources, "src/a/c.rs"),
            ["src/a/mod.rs", "src/b/d.rs"]
        );
    }

    #[test]
    fn a_name_counts_for_the_file_that_defines_it() {
        let sources = [
            (
                "src/lib.rs",
                "pub mod s; pub use s::Session; pub use cepa_transports::Side;",
            ),
            ("src/s.rs", ""),
            ("src/m.rs", "use crate::Session; use crate::Side;"),
            ("transports/src/lib.rs", "mod side; pub use side::Side;"),
            ("transports/src/side.rs", ""),
        ];
        assert_eq!(
            reached(&sources, "src/m.rs"),
            ["src/s.rs", "transports/src/side.rs"]
        );
        assert!(
            reached(&sources, "src/lib.rs").is_empty(),
            "showing a name is no use of it"
        );
    }

    #[test]
    fn a_shown_name_that_is_used_too_counts() {
        let sources = [
            (
                "src/m/mod.rs",
                "mod d; pub use d::Driver; pub fn f() -> Driver { Driver }",
            ),
            ("src/m/d.rs", ""),
        ];
        assert_eq!(reached(&sources, "src/m/mod.rs"), ["src/m/d.rs"]);
    }

    #[test]
    fn a_use_that_captures_is_no_import() {
        let sources = [
            (
                "src/a.rs",
                "fn f(x: &X) -> impl Y + use<'_> { let c = || { x; }; m::p::g(); c } use crate::n::h;",
            ),
            ("src/m/p.rs", ""),
            ("src/n.rs", ""),
        ];
        assert_eq!(reached(&sources, "src/a.rs"), ["src/n.rs"]);
    }

    #[test]
    fn a_module_counts_for_what_is_reached_through_it() {
        let sources = [
            (
                "src/a.rs",
                "use crate::m; use crate::n as o; fn f() { m::p::g(); o::h(); }",
            ),
            ("src/m/mod.rs", ""),
            ("src/m/p.rs", ""),
            ("src/n.rs", ""),
        ];
        assert_eq!(reached(&sources, "src/a.rs"), ["src/m/p.rs", "src/n.rs"]);
    }

    #[test]
    fn super_counts_from_inline_modules() {
        let sources = [
            ("src/m/mod.rs", ""),
            (
                "src/m/s.rs",
                "mod x { use super::Y; mod z { fn f() { super::super::g(); } } } fn y() {}",
            ),
            (
                "src/m/t.rs",
                "mod x { use super::super::Y; } fn f() { if a { b } }",
            ),
            ("src/m/u.rs", "mod x { fn f() {} } use super::Y;"),
        ];
        assert!(
            reached(&sources, "src/m/s.rs")
                .iter()
                .all(|path| path == "src/m/s.rs")
        );
        assert_eq!(reached(&sources, "src/m/t.rs"), ["src/m/mod.rs"]);
        assert_eq!(reached(&sources, "src/m/u.rs"), ["src/m/mod.rs"]);
    }

    #[test]
    fn other_crates_lead_nowhere() {
        let sources = [(
            "src/a.rs",
            "use tokio::io::ReadBuf; use std::fmt; fn f() { bytes::Bytes::new(); }",
        )];
        assert!(reached(&sources, "src/a.rs").is_empty());
    }

    #[test]
    fn a_file_named_by_a_test_module_is_a_test() {
        let sources = [
            ("src/lib.rs", "#[cfg(test)] mod cuts; mod b;"),
            ("src/cuts.rs", "use crate::b;"),
            ("src/b.rs", ""),
        ];
        let tree = Tree::new(sources);
        assert!(tree.files["src/cuts.rs"].is_test);
        assert!(!tree.files["src/b.rs"].is_test);
    }
}
