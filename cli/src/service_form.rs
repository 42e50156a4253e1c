//! The forms in which a service is had, by the name that a peer asks for.

use std::collections::BTreeMap;

use cepa::node::Access;
use cepa::session::reserved::{
    COMMAND_PREFIX, FILES_PREFIX, HANG_UP_PREFIX, SOCKS_PREFIX, WATCH_PREFIX,
};
use cepa::transports;

use crate::args::Target;
use crate::console::wire;
use crate::files::served::ONLY;
use crate::keep;
use crate::programs;

/// In which form a service is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// With its standard error and how it ended: `cepa.exec.NAME`.
    Status,
    /// The same with a terminal: `cepa.console.NAME`.
    Console,
    /// The same on a console that is kept under this name: `cepa.attach.KEPT.NAME`.
    Attached(&'a str),
    /// The end of that: `cepa.hangup.KEPT.NAME`.
    HungUp(&'a str),
    /// What that says to who has it, or where no name is given whoever has the service: `cepa.watch.KEPT.NAME`.
    Watched(&'a str),
    /// Connected to what is asked for in the substream: `cepa.socks.NAME`.
    Socks,
    /// Its files: `cepa.files.NAME`.
    Files,
    /// A program that it allows: `cepa.command.NAME`.
    Command,
}

/// The service that a name in such a form stands for.
pub(crate) fn plain(name: &str) -> (Form<'_>, &str) {
    if let Some(plain) = name.strip_prefix(wire::EXEC_PREFIX) {
        return (Form::Status, plain);
    }
    if let Some(plain) = name.strip_prefix(SOCKS_PREFIX) {
        return (Form::Socks, plain);
    }
    if let Some(plain) = name.strip_prefix(FILES_PREFIX) {
        return (Form::Files, plain);
    }
    if name == ONLY {
        return (Form::Files, "");
    }
    if let Some(plain) = name.strip_prefix(COMMAND_PREFIX) {
        return (Form::Command, plain);
    }
    if name == programs::ONLY {
        return (Form::Command, "");
    }
    let of_kept = |prefix| {
        let rest = name.strip_prefix(prefix)?;
        rest.split_once('.')
            .filter(|(kept, _)| keep::is_console_name(kept))
    };
    if let Some((kept, plain)) = of_kept(HANG_UP_PREFIX) {
        return (Form::HungUp(kept), plain);
    }
    if let Some(rest) = name.strip_prefix(WATCH_PREFIX)
        && let Some((kept, plain)) = rest.split_once('.')
        && (kept.is_empty() || keep::is_console_name(kept))
    {
        return (Form::Watched(kept), plain);
    }
    match of_kept(wire::ATTACH_PREFIX) {
        Some((kept, plain)) => (Form::Attached(kept), plain),
        // One without a name is nobody's.
        None => (
            Form::Console,
            name.strip_prefix(wire::PREFIX).unwrap_or(name),
        ),
    }
}

pub(crate) type Offered = (Target, Access);

/// The only one of a kind.
pub(crate) fn only(list: &BTreeMap<String, Offered>, is: fn(&Target) -> bool) -> Option<&Offered> {
    let mut all = list.values().filter(|(target, _)| is(target));
    all.next().filter(|_| all.next().is_none())
}

/// Whether others can see what it says to who has it open: a line, or a console that is kept.
pub(crate) fn can_be_watched(target: &Target) -> bool {
    let Target::Dial(to) = target else {
        return false;
    };
    matches!(
        to.target(),
        transports::Target::Serial { .. }
            | transports::Target::Rfc2217 { .. }
            | transports::Target::Pty { .. }
            | transports::Target::Exec { pty: true, .. }
    )
}
