//! `cepa completions`: a script that completes command lines in a shell.
//!
//! clap_complete writes the words of the commands; what it cannot know are the names of known peers. So its function is
//! renamed, and one in its place asks `cepa peer ls` for the names where one may stand: behind an `@`, and at the commands of
//! `cepa peer` that take a name. What comes from the file is never text that a shell would expand (`compgen -W` does that).

use clap_complete::{Shell, generate};

use crate::args::{self, Completions};
use crate::exit::{self, Failure};

pub(crate) fn run(args: &Completions) -> Result<(), Failure> {
    exit::print(&script(args.shell))
}

fn script(shell: args::Shell) -> String {
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

_cepa() {
    local word=$2 line=${COMP_LINE:0:COMP_POINT}
    local typed=${line##*[[:space:]]}
    COMPREPLY=()
    if [[ $typed == @* || $typed == *[/=]@* ]]; then
        if [[ $word == *@* ]]; then
            _cepa_peers "${typed#*@}" "${word%%@*}@"
        else
            _cepa_peers "${typed#*@}" ""
        fi
    elif [[ ${COMP_WORDS[1]} == peer && ${COMP_WORDS[2]} =~ ^(rm|rename|verify)$ &&
        $COMP_CWORD -eq 3 && $typed != -* ]]; then
        _cepa_peers "$typed" ""
    else
        _cepa_words "$@"
    fi
}
"#;

const ZSH: &str = r#"
_cepa() {
    local word=$words[CURRENT]
    local -a names
    names=(${${(f)"$(command cepa peer ls 2>/dev/null)"}%% *})
    if [[ $word == (|*[/=])@* ]]; then
        compset -P '(|*[/=])@'
        compadd -a names
    elif [[ $words[2] == peer && $words[3] == (rm|rename|verify) ]] && (( CURRENT == 4 )); then
        compadd -a names
    else
        _cepa_words "$@"
    fi
}
"#;

const FISH: &str = r#"
function __cepa_peers
    command cepa peer ls 2>/dev/null | string replace -r ' .*' ''
end
complete -c cepa -n 'string match -qr "(^|[/=])@" -- (commandline -ct)' -f -a '(string replace -r "((?:^|[/=])@).*" "\$1" -- (commandline -ct))(__cepa_peers)'
complete -c cepa -n '__fish_seen_subcommand_from peer; and __fish_seen_subcommand_from rm rename verify' -f -a '(__cepa_peers)'
"#;
