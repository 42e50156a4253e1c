//! What short codes have led to, so that a code which is used up at the relay goes on to be of use to who has used it: a command that was
//! interrupted is run again as it was typed, and a code that was given to the wrong command is given to the right one.
//!
//! Each is a file in `codes` of the configuration folder, by the relay and the code: a ticket or an invitation, which holds a secret, so
//! it is the user's alone as all of that folder. By then it is of use to our key only, which lies beside it (a ticket that was shown), or
//! to nobody else who has not got hold of the folder. A few are kept; those whose time is over are removed.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cepa::identity::{Invitation, PeerId, UnixTime, read_private};
use cepa::protocols::code::{MAX_OFFERED, ShortCode};
use cepa::protocols::ticket::Ticket;
use zeroize::Zeroizing;

use crate::folder;

/// Most of them that are kept: more than anybody uses at once.
const MOST: usize = 16;

/// Longer than it takes to write one.
const WRITING: Duration = Duration::from_secs(60);

/// What the code has led to before, while that can be used.
pub(crate) fn earlier(relay: PeerId, code: &ShortCode) -> Option<Zeroizing<String>> {
    text(&place(relay, code)?)
}

/// Keeps it. Without a folder to keep it in, the code is used up, as it would be anyway.
pub(crate) fn keep(relay: PeerId, code: &ShortCode, text: &str) -> io::Result<()> {
    let Some(place) = place(relay, code) else {
        return Ok(());
    };
    let folder = place.parent().unwrap_or(&place);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    make_room(folder);
    // A file is there whole or not at all.
    let draft = folder.join(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, &place)
}

fn place(relay: PeerId, code: &ShortCode) -> Option<PathBuf> {
    let name = format!("{}.{relay}", *code.text());
    Some(folder::path().ok()?.join("codes").join(name))
}

fn text(path: &Path) -> Option<Zeroizing<String>> {
    let bytes = read_private(path, MAX_OFFERED as u64).ok().flatten()?;
    let text = Zeroizing::new(String::from_utf8(bytes).ok()?);
    (folder::now() < expires(&text)?).then_some(text)
}

fn expires(text: &str) -> Option<UnixTime> {
    let of_ticket = text.parse::<Ticket>().ok().map(|it| it.expires());
    of_ticket.or_else(|| Some(text.parse::<Invitation>().ok()?.expires()))
}

/// Removes what is of no use any more, then the oldest.
fn make_room(folder: &Path) {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    let (mut left, useless): (Vec<_>, Vec<_>) = all
        .map(|entry| entry.path())
        .filter(|path| !is_being_written(path))
        .partition(|path| text(path).is_some());
    left.sort_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
    let surplus = (left.len() + 1).saturating_sub(MOST);
    for path in useless.iter().chain(left.iter().take(surplus)) {
        let _ = fs::remove_file(path);
    }
}

/// Another command's draft, which has no other name yet. One that was left behind is older.
fn is_being_written(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let modified = fs::metadata(path).and_then(|it| it.modified());
    let age = modified.ok().and_then(|at| at.elapsed().ok());
    name.as_encoded_bytes().starts_with(b".") && age.is_none_or(|age| age < WRITING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cepa::node::PeerAddr;

    fn ticket(expires: UnixTime) -> Zeroizing<String> {
        let of = PeerAddr::new(PeerId::from_bytes([1; 32]));
        Ticket::new(&of, expires).unwrap().text().unwrap()
    }

    /// No more than a few, none whose time is over, and nobody else's.
    #[test]
    fn room_is_made_for_one_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let write = |name: &str, text: &str, mode| {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(mode);
            let mut file = options.open(path.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let (good, over) = (
            folder::in_time(Duration::from_secs(600)),
            // A ticket tells it to the minute.
            UnixTime::since_unix_epoch(Duration::from_secs(folder::now().as_secs() - 120)),
        );
        for n in 0..MOST {
            write(&format!("{n}"), &ticket(good), 0o600);
        }
        write("over", &ticket(over), 0o600);
        write("else", "else", 0o600);
        write("open", &ticket(good), 0o644);
        write(".7", &ticket(good), 0o600);
        write(".8", &ticket(good), 0o600);
        let left_behind = fs::File::options().write(true).open(path.join(".8"));
        let hour = Duration::from_secs(3600);
        let before = std::time::SystemTime::now() - hour;
        left_behind.unwrap().set_modified(before).unwrap();
        make_room(path);
        fs::remove_file(path.join(".7")).unwrap();
        let names = fs::read_dir(path)
            .unwrap()
            .map(|it| it.unwrap().file_name());
        let names: Vec<_> = names.collect();
        assert_eq!(names.len(), MOST - 1, "{names:?}");
        assert!(
            names
                .iter()
                .all(|it| it.to_str().unwrap().parse::<usize>().is_ok())
        );
    }
}
