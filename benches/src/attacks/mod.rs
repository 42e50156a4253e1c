//! What a hostile peer can do to cepa and to its rivals: the same bytes over loopback TCP against one victim after
//! the other, and a table of what each came to.
//!
//! ```text
//! cargo run --release -p cepa-bench -- attacks [--out FILE] [--victim NAME=COMMAND]…
//! ```
//!
//! `cepa`, the `yamux` crate and the `tokio-yamux` crate are in this program, with their default settings;
//! hashicorp/yamux is built from `hashicorp.go` where Go and its library are. `--victim` adds another:
//! COMMAND is called as `victim` says. What is measured is resident memory at its peak, above that of the idle victim, so the
//! allocator's own reserves are in it; what is asserted about cepa is in `tests/mux_hostile`, which counts allocations.
//!
//! | file | holds |
//! | --- | --- |
//! | `list` | the attacks |
//! | `attacker` | a connection that writes anything and notes what comes back |
//! | `victim` | the processes that are attacked, from inside and outside |
//! | `wire` | frames |

mod attacker;
mod list;
pub(crate) mod victim;
mod wire;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::Outcome;
use list::{ENDINGS, FAULTS, FLOODS};

/// Where Debian's package puts the library: it has no module, but a GOPATH of its own.
const DEBIAN_GOPATH: &str = "/usr/share/gocode";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// File for the tables as Markdown
    #[arg(long)]
    out: Option<PathBuf>,
    /// One more victim, as NAME=COMMAND; the command is given `hold|discard|drop PORT`
    #[arg(long)]
    victim: Vec<String>,
    /// Only attacks whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Who is attacked: a name, and the command.
type Who = (String, Vec<String>);

type Against<'a> = Box<dyn Fn(&[String]) -> Outcome<String> + 'a>;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let victims = victims(&options.victim)?;
    let mut markdown = String::new();
    let names = FLOODS.iter().map(|attack| attack.name);
    let floods = names.zip(FLOODS.iter().map(|attack| against(|to| attack.against(to))));
    table(
        "Peak of memory, and what became of it",
        floods.collect(),
        &victims,
        options,
        &mut markdown,
    )?;
    let names = FAULTS.iter().map(|attack| attack.name);
    let faults = names.zip(FAULTS.iter().map(|attack| against(|to| attack.against(to))));
    table(
        "Broken rules, and what is read of the stream",
        faults.collect(),
        &victims,
        options,
        &mut markdown,
    )?;
    let names = ENDINGS.iter().map(|attack| attack.name);
    let ends = names.zip(
        ENDINGS
            .iter()
            .map(|attack| against(|to| attack.against(to))),
    );
    table(
        "Ends without FIN, and what the reader reads",
        ends.collect(),
        &victims,
        options,
        &mut markdown,
    )?;
    match &options.out {
        Some(file) => std::fs::write(file, &markdown)?,
        None => print!("\n{markdown}"),
    }
    Ok(())
}

fn against<'a>(attack: impl Fn(&[String]) -> Outcome<String> + 'a) -> Against<'a> {
    Box::new(attack)
}

/// Runs attacks on all victims, and adds a table to `markdown`.
fn table(
    title: &str,
    attacks: Vec<(&str, Against<'_>)>,
    victims: &[Who],
    options: &Options,
    markdown: &mut String,
) -> Outcome<()> {
    let names: Vec<&str> = victims.iter().map(|(name, _)| name.as_str()).collect();
    write!(
        markdown,
        "### {title}\n\n| | {} |\n|---|",
        names.join(" | ")
    )?;
    writeln!(markdown, "{}", "---|".repeat(names.len()))?;
    for (name, attack) in attacks {
        let wanted = options.only.as_ref();
        if wanted.is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        write!(markdown, "| {name} |")?;
        for (who, command) in victims {
            let reported = attack(command).unwrap_or_else(|error| format!("no result: {error}"));
            println!("{name}: {who}: {}", reported.replace("**", ""));
            write!(markdown, " {reported} |")?;
        }
        markdown.push('\n');
    }
    markdown.push('\n');
    Ok(())
}

fn victims(more: &[String]) -> Outcome<Vec<Who>> {
    let this = std::env::current_exe()?.display().to_string();
    let ours = |kind: &str| vec![this.clone(), "victim".into(), kind.into()];
    let mut victims = vec![
        ("cepa".to_owned(), ours("cepa")),
        ("yamux 0.14".to_owned(), ours("yamux")),
        ("tokio-yamux 0.3".to_owned(), ours("tokio-yamux")),
    ];
    match hashicorp() {
        Ok(program) => victims.push(("hashicorp".to_owned(), vec![program])),
        Err(error) => eprintln!("hashicorp/yamux is left out: {error}"),
    }
    for victim in more {
        let (name, command) = victim
            .split_once('=')
            .ok_or_else(|| format!("--victim {victim}: NAME=COMMAND is wanted"))?;
        let words = command.split_whitespace().map(str::to_owned).collect();
        victims.push((name.to_owned(), words));
    }
    Ok(victims)
}

/// Builds the victim in Go beside this program.
fn hashicorp() -> Outcome<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/attacks/hashicorp.go");
    let this = std::env::current_exe()?;
    let program = this.with_file_name("hashicorp_victim");
    let library = Path::new(DEBIAN_GOPATH).join("src/github.com/hashicorp/yamux");
    let gopath = if library.is_dir() {
        DEBIAN_GOPATH.to_owned()
    } else {
        std::env::var("GOPATH").unwrap_or_default()
    };
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(&source)
        .env("GO111MODULE", "off")
        .env("GOPATH", gopath)
        .output()
        .map_err(|error| format!("go: {error}"))?;
    if built.status.success() {
        Ok(program.display().to_string())
    } else {
        Err(String::from_utf8_lossy(&built.stderr).into_owned().into())
    }
}
