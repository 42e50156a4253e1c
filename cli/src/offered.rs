//! What a peer offers, as it tells who asks, in a person's words; and whether what a command wants is among it.
//!
//! A peer with an older cepa does not tell. Then nothing is known, and what is missing is noticed when it is opened.

use std::time::Duration;

use cepa::identity::KnownPeer;
use cepa::protocols::directory::{self, Directory, DirectoryError, Entry};
use cepa::session::Session;

use crate::exit::{Code, Failure};
use crate::folder;
#[cfg(feature = "completions")]
use crate::remembered;

/// How long a command waits at its start to be told. A serial line of 9600 baud needs a second for a list of usual length.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a service: its kind.
pub(crate) const SOCKS: &str = "socks";
pub(crate) const FILES: &str = "files";
pub(crate) const PROGRAMS: &str = "programs";

/// Names in a line that a person reads; further ones are counted.
const MOST_NAMES: usize = 20;

/// What the peer tells, which is written down for completions.
pub(crate) async fn asked(
    session: &Session,
    patience: Duration,
) -> Result<Directory, DirectoryError> {
    let list = directory::ask(session, patience).await?;
    #[cfg(feature = "completions")]
    remembered::keep(session.peer().id(), &list);
    Ok(list)
}

/// A service that a command will open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// Where each connection says itself where it leads.
    pub(crate) socks: bool,
}

/// Fails where the peer says that what is wanted is not there. What it does not tell is for later.
pub(crate) async fn check(session: &Session, wanted: &[Wanted<'_>]) -> Result<(), Failure> {
    match asked(session, PATIENCE).await {
        Ok(list) => {
            let missing = wanted
                .iter()
                .find_map(|it| missing(&list, *it, &name(session)));
            missing.map_or(Ok(()), |why| Err(Failure::new(Code::Refused, why)))
        }
        // An older peer, or one that is slow, or a session that is over by now and says so itself.
        Err(_) => Ok(()),
    }
}

/// What a peer has for who names no service.
pub(crate) enum Only {
    One(String),
    Several(Vec<String>),
    /// There is none, or it does not tell.
    Unknown,
}

/// Its services, or those of one kind. By its name a service is had in every form: with its exit status, or on a console.
pub(crate) async fn only(session: &Session, kind: Option<&str>) -> Only {
    let Ok(list) = asked(session, PATIENCE).await else {
        return Only::Unknown;
    };
    let fits = |it: &&Entry| kind.is_none_or(|kind| it.kind == kind);
    let all = list.services.iter().filter(fits);
    let mut names: Vec<String> = all.map(|it| it.name.to_string()).collect();
    match names.len() {
        1 if list.is_complete => names.pop().map_or(Only::Unknown, Only::One),
        0 | 1 => Only::Unknown,
        _ => Only::Several(names),
    }
}

/// The first name that the peer has here; else its id, short.
pub(crate) fn name(session: &Session) -> String {
    let peer = session.peer().id();
    let known = folder::known_as(peer);
    let name = known.first().map(KnownPeer::name);
    name.map_or_else(|| format!("peer {}…", peer.short()), str::to_owned)
}

fn missing(list: &Directory, wanted: Wanted<'_>, peer: &str) -> Option<String> {
    let name = wanted.name;
    match list.find(name).map(|it| it.kind.as_str()) {
        None if list.is_complete => Some(format!(
            "{peer} offers no service {name}; {}",
            what_there_is(list)
        )),
        Some(SOCKS) if !wanted.socks => Some(format!(
            "service {name} of {peer} is a SOCKS service; use it with -D [ADDR:]PORT={name}"
        )),
        Some(FILES) => Some(format!(
            "service {name} of {peer} has files; use it with `cepa cp`"
        )),
        Some(PROGRAMS) => Some(format!(
            "service {name} of {peer} runs programs; use it with `cepa exec`"
        )),
        Some(kind) if wanted.socks && !kind.is_empty() && kind != SOCKS => Some(format!(
            "service {name} of {peer} leads to one address; use it with -L [ADDR:]PORT={name}"
        )),
        _ => None,
    }
}

fn what_there_is(list: &Directory) -> String {
    let names = list.services.iter().map(|it| it.name.as_str());
    let names: Vec<&str> = names.take(MOST_NAMES).collect();
    match (
        names.as_slice(),
        list.services.len().saturating_sub(MOST_NAMES),
    ) {
        ([], _) => "it offers you none: ask its owner to allow you one".to_owned(),
        (names, 0) => format!("you may open: {}", names.join(", ")),
        (names, more) => format!(
            "you may open: {} and {more} more (`cepa services`)",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(services: &[(&str, &str)]) -> Directory {
        let entry = |(name, kind): &(&str, &str)| Entry {
            name: name.parse().unwrap(),
            kind: (*kind).to_owned(),
        };
        Directory {
            services: services.iter().map(entry).collect(),
            is_complete: true,
        }
    }

    fn plain(name: &str) -> Wanted<'_> {
        Wanted { name, socks: false }
    }

    fn socks(name: &str) -> Wanted<'_> {
        Wanted { name, socks: true }
    }

    #[test]
    fn what_is_missing_is_said_with_what_there_is() {
        let some = list(&[
            ("sh", "command"),
            ("web", ""),
            ("way", "socks"),
            ("up", "files"),
            ("run", "programs"),
        ]);
        for (wanted, said) in [
            (plain("web"), None),
            (plain("sh"), None),
            (socks("way"), None),
            // Of a kind that is not known here.
            (socks("web"), None),
            (
                plain("wbe"),
                Some("ann offers no service wbe; you may open: sh, web, way, up, run"),
            ),
            (
                plain("way"),
                Some("service way of ann is a SOCKS service; use it with -D [ADDR:]PORT=way"),
            ),
            (
                plain("up"),
                Some("service up of ann has files; use it with `cepa cp`"),
            ),
            (
                socks("run"),
                Some("service run of ann runs programs; use it with `cepa exec`"),
            ),
            (
                socks("sh"),
                Some("service sh of ann leads to one address; use it with -L [ADDR:]PORT=sh"),
            ),
        ] {
            assert_eq!(missing(&some, wanted, "ann").as_deref(), said);
        }
        let none = missing(&list(&[]), plain("web"), "ann").unwrap();
        assert!(none.contains("it offers you none"), "{none}");
        let part = Directory {
            is_complete: false,
            ..some
        };
        assert_eq!(missing(&part, plain("wbe"), "ann"), None);
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..22).map(|n| format!("s{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        let said = what_there_is(&list(&all));
        assert!(
            said.ends_with(", s19 and 2 more (`cepa services`)"),
            "{said}"
        );
    }
}
