//! `cepa man`: the manual pages, one a command, made of the same words as `--help`.
//!
//! clap_mangen writes a page but for the text behind the options. That has tables and examples, whose lines begin with two
//! spaces and must stay lines, so it is written here: those lines as they are, all else filled as any text of a page.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use clap_mangen::Man as Page;

use crate::args::{self, Man};
use crate::exit::{Code, Failure, quoted, say};

pub(crate) fn run(args: &Man) -> Result<(), Failure> {
    let failed = |e: io::Error| {
        let dir = args.dir.display();
        Failure::new(
            Code::Local,
            format!("{dir}: {e}; give a folder that you may write to"),
        )
    };
    fs::create_dir_all(&args.dir).map_err(failed)?;
    let mut all = args::command();
    all.build();
    write(&all, &args.dir).map_err(failed)?;
    let first = args.dir.join("cepa.1").display().to_string();
    say(format_args!(
        "wrote the pages; try: man -l {}",
        quoted(&first)
    ));
    Ok(())
}

/// The page of a command, and those of the commands below it.
fn write(command: &clap::Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        write(below, dir)?;
    }
    let notes = command.get_after_help().map(ToString::to_string);
    let page = Page::new(command.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = notes {
        text.extend(section("NOTES", &notes).into_bytes());
    }
    fs::write(dir.join(page.get_filename()), text)
}

/// A section of a page in roff.
fn section(title: &str, text: &str) -> String {
    let mut out = format!(".SH {title}\n");
    let mut kept = false;
    for line in text.lines() {
        let as_it_is = line.strip_prefix("  ");
        if as_it_is.is_some() != kept {
            kept = as_it_is.is_some();
            // At 2 columns, where they stand in `--help` too, so that 80 are enough.
            out.push_str(if kept { ".nf\n.in 2n\n" } else { ".in\n.fi\n" });
        }
        match as_it_is.unwrap_or(line) {
            "" => out.push_str(".PP\n"),
            line => {
                let _ = writeln!(out, "\\&{}", line.replace('\\', "\\e").replace('-', "\\-"));
            }
        }
    }
    if kept {
        out.push_str(".in\n.fi\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_lines_and_nothing_is_taken_for_a_request() {
        assert_eq!(
            section("NOTES", "Codes:\n  0  all -c\n  1  \\\n.x\n\n'y"),
            ".SH NOTES\n\\&Codes:\n.nf\n.in 2n\n\\&0  all \\-c\n\\&1  \\e\n.in\n.fi\n\\&.x\n.PP\n\\&'y\n"
        );
    }
}
