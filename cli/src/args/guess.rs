//! What a command line that does not parse may have been meant to be: an option of another command, words in the other order, a
//! file without its option. clap sees one command and one word; this looks at the others too.

use std::ffi::OsString;

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
/// name.
pub(super) fn of(
    e: &clap::Error,
    words: &[OsString],
    all: &clap::Command,
    here: &clap::Command,
) -> Option<String> {
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match e.kind() {
        ErrorKind::UnknownArgument => {
            let found = text(ContextKind::InvalidArg)?;
            if found.starts_with("--") {
                option_of_another(found, all, here)
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

fn option_of_another(found: &str, all: &clap::Command, here: &clap::Command) -> Option<String> {
    let option = found.split(['=', ' ']).next().unwrap_or(found);
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
    match with.as_slice() {
        [] => None,
        [one] => Some(format!("it is an option of {one}")),
        [first, second, ..] => Some(format!("it is an option of {first} and {second}")),
    }
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
