//! `cepa completions`: a script that completes command lines in a shell.
//!
//! clap_complete writes the words of the commands; what it cannot know are the names of known peers and of the targets in `config.toml`. So
//! its function is renamed, and one in its place asks `cepa completions --names` for the names where one may stand, behind an `@`, and `cepa peer ls` at
//! the commands of `cepa peer` that take one. In a copy a colon follows the name, and no space; behind that are the services with files that the peer
//! offered the last time (`--files NAME`). Where an address may stand, the schemes are offered from their first letter on. What a shell or a command would
//! take for more than a name is not offered: a peer names its services as it likes, and bash puts the words in as they are.

use clap_complete::{Shell, generate};

use crate::args::{self, Completions};
use crate::exit::{self, Failure};
use crate::{names, offered, remembered};

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    match (args.shell, &args.files) {
        (Some(shell), _) => exit::print(&script(shell)),
        (None, Some(name)) => exit::print(&files(name)),
        (None, None) => exit::print(&names()),
    }
}

/// All that may stand behind an `@`, one a line. A file that is wrong has none.
fn names() -> String {
    let mut all = names::all();
    all.sort_unstable();
    all.dedup();
    lines(&all)
}

/// The services with files of a peer, one a line.
fn files(name: &str) -> String {
    lines(&remembered::of(name, offered::FILES))
}

/// Those that mean nothing else anywhere, each with a line end.
fn lines(names: &[String]) -> String {
    let plain = names.iter().filter(|name| is_plain(name));
    plain.flat_map(|name| [name, "\n"]).collect()
}

/// Whether a shell takes it for a word and a command for a name, whoever gave it.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

/// The commands whose words may be addresses. Not `cp`: what stands there is a file far more often.
const WITH_ADDRESS: &[&str] = &[
    "connect", "console", "exec", "forward", "send", "pipe", "serve", "relay", "invite", "ping",
    "services", "explain", "probe",
];

/// The beginnings of addresses: all schemes that mean something on a command line, with their colon.
fn schemes() -> String {
    let all = cepa::transports::endpoint::SCHEMES.iter();
    let all = all.filter(|scheme| **scheme != "memory");
    let all: Vec<String> = all.map(|scheme| format!("{scheme}:")).collect();
    all.join(" ")
}

fn script(shell: args::Shell) -> String {
    let script = script_for(shell).replace("@SCHEMES@", &schemes());
    script
        .replace("@WITH_ADDRESS_OR@", &WITH_ADDRESS.join("|"))
        .replace("@WITH_ADDRESS@", &WITH_ADDRESS.join(" "))
}

fn script_for(shell: args::Shell) -> String {
    match shell {
        args::Shell::Bash => {
            generated(Shell::Bash).replacen("_cepa() {", "_cepa_words() {", 1) + BASH
        }
        args::Shell::Zsh => {
            let script = generated(Shell::Zsh).replacen("\n_cepa() {", "\n_cepa_words() {", 1);
            // The last lines call the function when the file is loaded by itself.
            match script.rfind("\nif [ \"$funcstack[1]\"") {
                Some(at) => {
                    let (words, start) = script.split_at(at);
                    format!("{words}{ZSH}{start}")
                }
                None => script + ZSH,
            }
        }
        args::Shell::Fish => generated(Shell::Fish) + FISH,
    }
}

fn generated(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut args::command(), "cepa", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// bash breaks words at `@`, `:` and `=`, so the word that it completes may begin behind one; what counts is the character before.
const BASH: &str = r#"
_cepa_peers() {
    local name rest
    while read -r name rest; do
        [[ $name == "$1"* ]] && COMPREPLY+=("$2$name")
    done < <(command cepa peer ls 2>/dev/null)
}

_cepa_files() {
    local name
    while read -r name; do
        [[ $name == "$2"* ]] && COMPREPLY+=("$3$name/")
    done < <(command cepa completions --files "${1#@}" 2>/dev/null)
}

_cepa_names() {
    local name colon=""
    if [[ ${COMP_LINE:0:COMP_POINT} == *" cp "* ]]; then
        colon=:
        compopt -o nospace 2>/dev/null
    fi
    while read -r name; do
        [[ $name == "$1"* ]] && COMPREPLY+=("$2$name$colon")
    done < <(command cepa completions --names 2>/dev/null)
}

_cepa() {
    local word=$2 line=${COMP_LINE:0:COMP_POINT}
    local typed=${line##*[[:space:]]}
    COMPREPLY=()
    if [[ $typed == @*:* ]]; then
        # What follows is at the peer: no file here is meant.
        compopt +o default +o bashdefault 2>/dev/null
        if [[ $line == *" cp "* ]]; then
            compopt -o nospace 2>/dev/null
            if [[ $word == *:* ]]; then
                _cepa_files "${typed%%:*}" "${typed#*:}" "${word%%:*}:"
            else
                _cepa_files "${typed%%:*}" "${typed#*:}" ""
            fi
        fi
    elif [[ $typed == @* || $typed == *[/=]@* ]]; then
        if [[ $word == *@* ]]; then
            _cepa_names "${typed#*@}" "${word%%@*}@"
        else
            _cepa_names "${typed#*@}" ""
        fi
    elif [[ ${COMP_WORDS[1]} == peer && ${COMP_WORDS[2]} =~ ^(rm|rename|verify)$ &&
        $COMP_CWORD -eq 3 && $typed != -* ]]; then
        _cepa_peers "$typed" ""
    else
        _cepa_words "$@"
        if [[ $typed != -* ]]; then
            # An option begins with a dash: where nothing is typed, bash would put in the one that all have.
            local it kept=()
            for it in "${COMPREPLY[@]}"; do [[ $it == -* ]] || kept+=("$it"); done
            COMPREPLY=("${kept[@]}")
        fi
        if [[ ${#COMPREPLY[@]} -eq 0 && ${COMP_WORDS[1]} =~ ^(@WITH_ADDRESS_OR@)$ && $typed =~ ^[a-z][a-z0-9]*$ ]]; then
            COMPREPLY=($(compgen -W "@SCHEMES@" -- "$typed"))
            [[ ${#COMPREPLY[@]} -eq 0 ]] || compopt -o nospace 2>/dev/null
        fi
    fi
}
"#;

const ZSH: &str = r#"
_cepa() {
    local word=$words[CURRENT]
    local -a names
    if [[ $word == @*:* ]]; then
        # What follows is at the peer: no file here is meant.
        (( ${words[(I)cp]} )) || return 0
        names=(${(f)"$(command cepa completions --files ${${word%%:*}#@} 2>/dev/null)"})
        compset -P '*:'
        compadd -a -S / names
    elif [[ $word == (|*[/=])@* ]]; then
        names=(${(f)"$(command cepa completions --names 2>/dev/null)"})
        compset -P '(|*[/=])@'
        if (( ${words[(I)cp]} )); then
            compadd -a names -S :
        else
            compadd -a names
        fi
    elif [[ $words[2] == peer && $words[3] == (rm|rename|verify) ]] && (( CURRENT == 4 )); then
        names=(${${(f)"$(command cepa peer ls 2>/dev/null)"}%% *})
        compadd -a names
    else
        if [[ $words[2] == (@WITH_ADDRESS_OR@) && $word == [a-z]* && $word != *[^a-z0-9]* ]]; then
            names=(@SCHEMES@)
            compadd -a names -S ''
        fi
        _cepa_words "$@"
    fi
}
"#;

const FISH: &str = r#"
function __cepa_peers
    command cepa peer ls 2>/dev/null | string replace -r ' .*' ''
end
function __cepa_names
    set -l colon
    __fish_seen_subcommand_from cp; and set colon :
    command cepa completions --names 2>/dev/null | string replace -r '$' "$colon"
end
function __cepa_files
    set -l peer (commandline -ct | string replace -r ':.*' '')
    command cepa completions --files (string replace '@' '' -- $peer) 2>/dev/null | string replace -r '(.*)' "$peer:\$1/"
end
complete -c cepa -n '__fish_seen_subcommand_from cp; and string match -qr "^@.*:" -- (commandline -ct)' -f -a '(__cepa_files)'
complete -c cepa -n 'string match -qr "(^|[/=])@[^:]*\$" -- (commandline -ct)' -f -a '(string replace -r "((?:^|[/=])@).*" "\$1" -- (commandline -ct))(__cepa_names)'
complete -c cepa -n '__fish_seen_subcommand_from @WITH_ADDRESS@; and string match -qr "^[a-z][a-z0-9]*\$" -- (commandline -ct)' -a '@SCHEMES@'
complete -c cepa -n '__fish_seen_subcommand_from peer; and __fish_seen_subcommand_from rm rename verify' -f -a '(__cepa_peers)'
"#;
