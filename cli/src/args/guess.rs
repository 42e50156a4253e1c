//! What a command line that does not parse may have been meant to be: an option of another command, words in the other order, a
//! file without its option. clap sees one command and one word; this looks at the others too.

use std::ffi::OsString;

use cepa::transports::endpoint::hidden;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::overview::is_left_out;
use crate::values::DialTarget;

/// Options that mean the same at the two ends, and stand on one side only.
const TWINS: &[(&str, &str, &str)] = &[
    ("--allow", "--expect", "the option for the other end's id"),
    ("--trust", "--allow", "who may connect"),
    ("--trust-new", "--allow", "who may connect"),
    ("--expect", "--allow", "who may connect"),
    ("--service", "SERVICE", "the service to open"),
];

/// What to try instead, where there is a guess: `all` is the whole command line, and `here` the command of it that the words
/// name, with all words of its name.
pub(super) fn of(
    e: &clap::Error,
    words: &[OsString],
    all: &clap::Command,
    (name, here): (&str, &clap::Command),
) -> Option<String> {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match e.kind() {
        ErrorKind::UnknownArgument => {
            let found = text(ContextKind::InvalidArg)?;
            if found.starts_with("--") {
                option_of_another(found, words, all, (name, here))
            } else {
                file_without_option(found, words, here)
            }
        }
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let why = "this cepa was built without it (cli/Cargo.toml has the features)";
            is_left_out(word, all).then(|| why.to_owned())
        }
        ErrorKind::ValueValidation if text(ContextKind::InvalidArg)?.starts_with("<ADDR>") => {
            address_behind(text(ContextKind::InvalidValue)?, words)
        }
        _ => None,
    }
}

/// What to write for several values behind an option that takes one, as many of them as there are.
pub(super) fn several_values(
    e: &clap::Error,
    words: &[OsString],
    all: &clap::Command,
    here: &clap::Command,
) -> Option<String> {
    let wrong = word_in_no_place(e)?;
    let words: Vec<&str> = words
        .iter()
        .map_while(|word| word.to_str())
        .take_while(|word| *word != "--")
        .collect();
    // Behind the value that the option has taken.
    let (at, option, first) = (1..words.len()).find_map(|at| {
        if *words.get(at)? != wrong {
            return None;
        }
        let (option, value) = repeatable(&words, at - 1, here)?;
        Some((at, option, value))
    })?;
    let behind = words.get(at..)?.iter();
    let more: Vec<&str> = behind
        .take_while(|w| !w.starts_with('-'))
        .copied()
        .collect();
    // They count as values if the words parse better with the option in front of each.
    let mut tried: Vec<&str> = words.get(..at)?.to_vec();
    let mut repeated = Vec::new();
    for value in more {
        let attempt = [&tried[..], &[&option, value]].concat();
        let failed = all.clone().try_get_matches_from(&attempt).err();
        if failed.is_some_and(|e| is_about(&e, value)) {
            break;
        }
        tried = attempt;
        repeated.push(format!(" {option} {value}"));
    }
    if repeated.is_empty() {
        return None;
    }
    let line = format!(
        "{option} takes one value; repeat it: {option} {first}{}",
        repeated.concat()
    );
    Some(hidden(&line))
}

/// The word that was taken for one more of those without an option, and is none.
fn word_in_no_place(e: &clap::Error) -> Option<&str> {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    let word = match e.kind() {
        ErrorKind::UnknownArgument => argument,
        ErrorKind::ValueValidation if !argument.starts_with('-') => {
            text(ContextKind::InvalidValue)?
        }
        _ => return None,
    };
    (!word.starts_with('-')).then_some(word)
}

/// Whether this word is what is wrong.
fn is_about(e: &clap::Error, word: &str) -> bool {
    [ContextKind::InvalidArg, ContextKind::InvalidValue]
        .into_iter()
        .any(|kind| matches!(e.get(kind), Some(ContextValue::String(text)) if text == word))
}

/// The option that may be repeated whose value ends with the word at `at`, and the value: `--allow X`, `--allow=X` or `-LX`.
fn repeatable<'a>(words: &[&'a str], at: usize, here: &clap::Command) -> Option<(String, &'a str)> {
    let is = |arg: &&clap::Arg, option: &str| {
        let long = option.strip_prefix("--");
        let short = option.strip_prefix('-').and_then(|s| s.chars().next());
        long.is_some_and(|long| arg.get_long() == Some(long))
            || (option.chars().count() == 2 && short.is_some_and(|c| arg.get_short() == Some(c)))
    };
    let appends = |option: &str| {
        here.get_arguments()
            .find(|arg| is(arg, option))
            .is_some_and(|arg| matches!(arg.get_action(), clap::ArgAction::Append))
    };
    let word = *words.get(at)?;
    let (option, value) =
        if let Some((option, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
            (option, value)
        } else if word.starts_with('-') {
            word.split_at_checked(2)
                .filter(|(_, value)| !value.is_empty())?
        } else {
            (*words.get(at.checked_sub(1)?)?, word)
        };
    appends(option).then(|| (option.to_owned(), value))
}

fn has(command: &clap::Command, option: &str) -> bool {
    let name = option.strip_prefix("--").unwrap_or(option);
    let named = |arg: &clap::Arg| {
        arg.get_long() == Some(name)
            || arg
                .get_value_names()
                .is_some_and(|names| names.iter().any(|n| *n == name))
    };
    command.get_arguments().any(named)
}

fn option_of_another(
    found: &str,
    words: &[OsString],
    all: &clap::Command,
    (name, here): (&str, &clap::Command),
) -> Option<String> {
    let option = found.split(['=', ' ']).next().unwrap_or(found);
    if let Some(whole) = of_subcommand(option, words, (name, here)) {
        return Some(format!("give it behind the subcommand: `{whole}`"));
    }
    if option == "--durable" && has(here, "--no-durable") {
        return Some("--durable is the default here; leave it out".to_owned());
    }
    let twin = TWINS
        .iter()
        .find(|(there, twin, _)| *there == option && has(here, twin));
    if let Some((_, twin, what)) = twin {
        return Some(format!("{what} is {twin} here"));
    }
    let mut with = Vec::new();
    for command in all.get_subcommands() {
        if has(command, option) {
            with.push(format!("`cepa {}`", command.get_name()));
        }
    }
    // A command that has others is not run itself.
    let itself = !with.is_empty();
    for command in all.get_subcommands().filter(|_| !itself) {
        for below in command.get_subcommands().filter(|below| has(below, option)) {
            with.push(format!(
                "`cepa {} {}`",
                command.get_name(),
                below.get_name()
            ));
        }
    }
    match with.as_slice() {
        [] => None,
        [one] => Some(format!("it is an option of {one}")),
        [first, second, ..] => Some(format!("it is an option of {first} and {second}")),
    }
}

/// The command that takes the option behind its name, as it is typed: this one, or the subcommand that the words name, or else one that
/// only shows.
fn of_subcommand(
    option: &str,
    words: &[OsString],
    (name, here): (&str, &clap::Command),
) -> Option<String> {
    const SHOWS: &[&str] = &["show", "ls", "status"];
    if let Some(typed) = typed(option, here) {
        return Some(format!("{name} {typed}"));
    }
    let with = || here.get_subcommands().filter(|below| has(below, option));
    let named = |below: &&clap::Command| words.iter().any(|word| word == below.get_name());
    let shows = |below: &&clap::Command| SHOWS.contains(&below.get_name());
    // Any command may have been meant where none is named at all.
    let guess = || with().find(shows).or_else(|| with().next());
    let below = with()
        .find(named)
        .or_else(|| guess().filter(|_| name != "cepa"))?;
    let typed = typed(option, below)?;
    Some(format!("{name} {} {typed}", below.get_name()))
}

/// The option with what stands for its value, if the command has it.
fn typed(option: &str, command: &clap::Command) -> Option<String> {
    let name = option.strip_prefix("--")?;
    let arg = command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name))?;
    Some(
        match (arg.get_action().takes_values(), arg.get_value_names()) {
            (true, Some([value, ..])) => format!("{option} {value}"),
            _ => option.to_owned(),
        },
    )
}

/// One word too many, where the command wants a file by an option and has none.
fn file_without_option(found: &str, words: &[OsString], here: &clap::Command) -> Option<String> {
    let mut wanted = here.get_arguments().filter(|arg| arg.is_required_set());
    let option = wanted.find_map(clap::Arg::get_long)?;
    let given = words.iter().filter_map(|word| word.to_str());
    let missing = !given
        .into_iter()
        .any(|word| word.trim_start_matches('-').split('=').next() == Some(option));
    missing.then(|| format!("did you mean --{option} {found}?"))
}

/// The address may stand where something else belongs.
fn address_behind(wrong: &str, words: &[OsString]) -> Option<String> {
    let mut before = "";
    let words = words.iter().filter_map(|word| word.to_str());
    // What follows an option is mostly its value.
    let mut behind = words.filter(|word| {
        let option = std::mem::replace(&mut before, word);
        !option.starts_with('-') || option.contains('=') || *word == wrong
    });
    behind.find(|word| *word == wrong)?;
    let address = behind.find(|word| word.contains(':') && word.parse::<DialTarget>().is_ok())?;
    (!wrong.contains(':')).then(|| format!("the address comes first: {address} {wrong}"))
}
