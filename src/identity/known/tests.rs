//! The known-peers file: what is kept, what is refused, and that two writers do not lose each
//! other's peers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use rustls_pki_types::UnixTime;

use super::*;
use crate::identity::PeerId;

fn id(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn peer(name: &str, byte: u8) -> KnownPeer {
    KnownPeer::new(name, id(byte)).unwrap()
}

/// A file in a folder of its own.
fn place() -> (tempfile::TempDir, KnownPeersFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = KnownPeersFile::new(folder.path().join("known_peers"));
    (folder, file)
}

#[cfg(unix)]
fn chmod(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_line_says_everything_and_reads_back() {
    let mut one = peer("server.example-2", 1);
    one.first_seen = Some(at(1_764_085_212));
    one.how = Some(Origin::Verified);
    one.add_place("tcp:host:7000");
    one.add_place("exec:ssh host 'a # b' %41");
    one.add_place("tcp:host:7000");
    one.replace_key(id(2), at(1_764_085_300));
    let line = one.to_string();
    assert_eq!(
        line,
        format!(
            "server.example-2 {} first=2025-11-25T15:40:12Z how=verified at=tcp:host:7000 \
             at=exec:ssh%20host%20'a%20%23%20b'%20%2541 was={}@2025-11-25T15:41:40Z",
            id(2),
            id(1)
        )
    );
    assert_eq!(KnownPeer::parse(&line), Ok((one, None)));
    // By hand, with no more than that.
    let (hand, remark) = KnownPeer::parse(&format!("a\t{}  # of Ann", id(3))).map_or_else(
        |e| panic!("{e}"),
        |(peer, remark)| (peer, remark.map(str::to_owned)),
    );
    assert_eq!((hand, remark.as_deref()), (peer("a", 3), Some("# of Ann")));
}

#[test]
fn the_old_key_is_good_until_its_time_and_no_longer() {
    let mut one = peer("a", 1);
    one.replace_key(id(2), at(100));
    assert!(one.has_key(id(2), at(1000)));
    assert!(one.has_key(id(1), at(100)));
    assert!(!one.has_key(id(1), at(101)));
    for key in 3..100 {
        one.replace_key(id(key), at(u64::from(key)));
    }
    assert_eq!(one.previous.len(), 16, "bounded, the newest stay");
    assert_eq!(one.previous.last().unwrap().id, id(98));
}

#[test]
fn what_is_not_changed_stays_byte_for_byte() {
    let text = format!(
        "# my peers\r\n\r\n  zed   {}   at=tcp:z:1  # the last one\r\nbroken line\nann {}\n\u{feff}\n{}",
        id(1),
        id(2),
        "no end"
    );
    let mut known = KnownPeers::parse(text.as_bytes());
    assert_eq!(known.to_bytes(), text.as_bytes());
    let damaged: Vec<_> = known.damaged().map(|line| line.number).collect();
    assert_eq!(damaged, [4, 6, 7]);
    known
        .change("zed", |peer| peer.add_place("tcp:z:2"))
        .unwrap();
    known.change("ann", |_| {}).unwrap();
    known.add(peer("new", 3)).unwrap();
    let expected = text.replace(
        &format!("  zed   {}   at=tcp:z:1  # the last one", id(1)),
        &format!("zed {} at=tcp:z:1 at=tcp:z:2 # the last one", id(1)),
    ) + &format!("\nnew {}\n", id(3));
    assert_eq!(String::from_utf8(known.to_bytes()).unwrap(), expected);
    // Only the line of the one who goes, goes.
    known.remove("ann").unwrap();
    let expected = expected.replace(&format!("ann {}\n", id(2)), "");
    assert_eq!(String::from_utf8(known.to_bytes()).unwrap(), expected);
    assert_eq!(known.damaged().count(), 3);
}

#[test]
fn a_damaged_line_says_what_is_wrong() {
    let good = id(1);
    let long = format!("a {good} at={}", "x".repeat(9000));
    for (line, what) in [
        ("a".to_owned(), "the peer id is missing"),
        ("a b".to_owned(), "52 characters"),
        (format!("any {good}"), "cannot be the name of a peer"),
        (format!("-a {good}"), "cannot be the name of a peer"),
        (format!("{good} {good}"), "cannot be the name of a peer"),
        (format!("a {good} until=x"), "unknown field"),
        (format!("a {good} word"), "unknown field"),
        (format!("a {good} how=guessed"), "unknown field"),
        (format!("a {good} how=added how=asked"), "unknown field"),
        (format!("a {good} first=yesterday"), "unknown field"),
        (
            format!("a {good} first=1960-01-01T00:00:00Z"),
            "unknown field",
        ),
        (format!("a {good} at=%zz"), "unknown field"),
        (format!("a {good} at=%+1"), "unknown field"),
        (format!("a {good} at=%ff"), "unknown field"),
        (format!("a {good} was={good}"), "unknown field"),
        (format!("b {good}\nb {good}"), "line 1 already"),
        (long, "longer than 8192"),
    ] {
        let known = KnownPeers::parse(line.as_bytes());
        let damaged: Vec<_> = known.damaged().collect();
        assert_eq!(damaged.len(), 1, "{line}");
        let text = damaged[0].problem.to_string();
        assert!(
            text.contains(what) && !text.contains('\n'),
            "{line}: {text}"
        );
    }
    assert_eq!(
        KnownPeers::parse(b"\xff\n")
            .damaged()
            .next()
            .unwrap()
            .problem,
        EntryError::NotText
    );
}

#[test]
fn names_are_one_peers_each() {
    let mut known = KnownPeers::default();
    known.add(peer("a", 1)).unwrap();
    assert!(
        matches!(known.add(peer("a", 2)), Err(EditError::NameTaken { id: i, .. }) if i == id(1))
    );
    known.add(peer("b", 2)).unwrap();
    assert!(matches!(
        known.rename("b", "a"),
        Err(EditError::NameTaken { .. })
    ));
    assert!(matches!(known.rename("b", "b c"), Err(EditError::Entry(_))));
    assert!(matches!(
        known.rename("x", "c"),
        Err(EditError::NoSuchPeer { .. })
    ));
    assert!(matches!(
        known.remove("x"),
        Err(EditError::NoSuchPeer { .. })
    ));
    known.rename("b", "c").unwrap();
    assert_eq!(known.named("c").unwrap().id, id(2));
    assert_eq!(known.free_name("tcp:[::1]:7000"), "1-7000");
    assert_eq!(known.free_name("tcp:a"), "a-2");
    assert_eq!(known.free_name("unix:/"), "unix");
    assert_eq!(known.free_name("%%"), "peer");
    assert_eq!(known.free_name("any"), "peer");
    let long = "x".repeat(9000);
    assert!(matches!(
        known.change("c", |peer| peer.add_place(&long)),
        Err(EditError::Entry(EntryError::TooLong))
    ));
}

#[test]
fn the_file_is_private_and_replaced_in_one_step() {
    let (folder, file) = place();
    assert_eq!(
        file.read().unwrap(),
        KnownPeers::default(),
        "none is an empty list"
    );
    file.edit(|known| known.add(peer("a", 1))).unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    assert!(text.starts_with("# ") && text.ends_with(&format!("a {}\n", id(1))));
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let before = fs::metadata(file.path()).unwrap();
        assert_eq!(before.permissions().mode() & 0o7777, 0o600);
        file.edit(|known| known.add(peer("b", 2))).unwrap();
        let after = fs::metadata(file.path()).unwrap();
        assert_ne!(before.ino(), after.ino(), "a new file under the old name");
        assert_eq!(after.permissions().mode() & 0o7777, 0o600);
        let lock = fs::metadata(format!("{}.lock", file.path().display())).unwrap();
        assert_eq!(lock.permissions().mode() & 0o7777, 0o600, "of the lock");
    }
    // A change that fails changes nothing.
    let before = fs::read(file.path()).unwrap();
    let error = file.edit(|known| {
        known.add(peer("c", 3))?;
        known.add(peer("a", 4))
    });
    assert!(matches!(
        error.unwrap_err().problem(),
        KnownPeersProblem::Edit(EditError::NameTaken { .. })
    ));
    assert_eq!(fs::read(file.path()).unwrap(), before);
    let mut names: Vec<PathBuf> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["known_peers", "known_peers.lock"].map(PathBuf::from),
        "no drafts stay"
    );
}

#[cfg(unix)]
#[test]
fn what_others_can_touch_is_refused_and_so_is_what_is_no_file() {
    let (folder, file) = place();
    file.edit(|known| known.add(peer("a", 1))).unwrap();
    let change = || file.edit(|known| known.add(peer("b", 2)));
    for mode in [0o640, 0o604, 0o620, 0o602, 0o666, 0o601] {
        chmod(file.path(), mode);
        let error = file.read().unwrap_err();
        assert!(
            matches!(error.problem(), KnownPeersProblem::Permissions { mode: m } if *m == mode)
        );
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(change().is_err());
    }
    let real = folder.path().join("real");
    fs::rename(file.path(), &real).unwrap();
    chmod(&real, 0o600);
    std::os::unix::fs::symlink(&real, file.path()).unwrap();
    let error = file.read().unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert!(change().is_err());
    assert!(fs::symlink_metadata(file.path()).unwrap().is_symlink());
    // A link to nothing is no empty list either.
    fs::remove_file(&real).unwrap();
    assert!(file.read().is_err());
    assert!(change().is_err() && !real.exists());
    fs::remove_file(file.path()).unwrap();
    fs::create_dir(file.path()).unwrap();
    assert!(file.read().unwrap_err().to_string().contains("folder"));
    fs::remove_dir(file.path()).unwrap();
    let huge = fs::File::create(file.path()).unwrap();
    huge.set_len((4 << 20) + 1).unwrap();
    chmod(file.path(), 0o600);
    assert!(file.read().unwrap_err().to_string().contains("4 MiB"));
    // Below a file there can be no file; that is no empty list.
    let below = KnownPeersFile::new(file.path().join("known_peers"));
    assert!(matches!(
        below.read().unwrap_err().problem(),
        KnownPeersProblem::Read(_)
    ));
    assert!(matches!(
        below.edit(|_| Ok(())).unwrap_err().problem(),
        KnownPeersProblem::Write(_)
    ));
    // The lock must not lead elsewhere.
    let (folder, file) = place();
    let target = folder.path().join("precious");
    std::os::unix::fs::symlink(&target, folder.path().join("known_peers.lock")).unwrap();
    assert!(file.edit(|known| known.add(peer("a", 1))).is_err());
    assert!(!target.exists());
}

#[test]
fn many_writers_lose_nothing() {
    let (_folder, file) = place();
    let threads: Vec<_> = (0..8_u8)
        .map(|thread| {
            let file = file.clone();
            std::thread::spawn(move || {
                for n in 0..5_u8 {
                    file.edit(|known| known.add(peer(&format!("p{thread}-{n}"), thread)))
                        .unwrap();
                    file.read().unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let known = file.read().unwrap();
    assert_eq!(known.peers().count(), 40);
    assert_eq!(known.damaged().count(), 0);
}

#[test]
fn a_lock_that_is_kept_is_an_error() {
    use fs4::fs_std::FileExt as _;
    let (folder, file) = place();
    let lock = fs::File::create(folder.path().join("known_peers.lock")).unwrap();
    lock.lock_exclusive().unwrap();
    let error = file.edit(|known| known.add(peer("a", 1))).unwrap_err();
    assert!(
        matches!(error.problem(), KnownPeersProblem::Locked),
        "{error}"
    );
    assert!(!file.path().exists());
}

#[test]
fn a_place_is_an_address_without_what_may_change() {
    for (address, place) in [
        ("tcp:host:7000", Some("tcp:host:7000")),
        ("mux+tls+tls+tcp:[::1]:7000", Some("tcp:[::1]:7000")),
        (
            "serial:/dev/ttyUSB0,baud=9600,flow=hw",
            Some("serial:/dev/ttyUSB0"),
        ),
        (
            "exec:ssh a 'b, c',dir=/tmp",
            Some("exec:ssh a 'b, c',dir=/tmp"),
        ),
        ("unix:/run/a", Some("unix:/run/a")),
        ("stdio:", None),
        ("fd:3", None),
    ] {
        assert_eq!(
            place_of(&address.parse().unwrap()).as_deref(),
            place,
            "{address}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_kept(text: Vec<u8>) {
        prop_assert_eq!(KnownPeers::parse(&text).to_bytes(), text);
    }

    #[test]
    fn any_peer_is_read_as_it_was_written(
        key: [u8; 32],
        places in prop::collection::vec("\\PC{0,40}|[ \t#%\n]{1,9}", 0..4),
        first in prop::option::of(0..253_402_300_800_u64),
        old in prop::collection::vec((any::<[u8; 32]>(), 0..253_402_300_800_u64), 0..4),
    ) {
        let mut one = KnownPeer::new("name", PeerId::from_bytes(key)).unwrap();
        one.first_seen = first.map(at);
        one.how = Some(Origin::FirstUse);
        one.places = places;
        one.previous = old.into_iter().map(|(key, until)| Previous {
            id: PeerId::from_bytes(key),
            until: at(until),
        }).collect();
        let mut known = KnownPeers::parse(b"# first\n");
        known.add(one.clone()).unwrap();
        let again = KnownPeers::parse(&known.to_bytes());
        prop_assert_eq!(again.damaged().count(), 0);
        prop_assert_eq!(again.named("name"), Some(&one));
    }
}

#[cfg(unix)]
#[test]
fn a_list_of_another_user_or_in_a_folder_of_another_user_is_refused() {
    use std::os::unix::fs::chown;
    let (folder, file) = place();
    file.edit(|known| known.add(peer("a", 1))).unwrap();
    let change = || file.edit(|known| known.add(peer("b", 2)));
    // As root alone; elsewhere the table of `files.rs` is the test.
    if chown(file.path(), Some(12345), None).is_ok() {
        let error = file.read().unwrap_err();
        assert!(
            matches!(
                error.problem(),
                KnownPeersProblem::NotOurs { owner: 12345, .. }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("user 12345"), "{error}");
        assert!(change().is_err());
        chown(file.path(), Some(0), None).unwrap();
        // Who holds the lock's file could keep it locked for ever.
        let lock = format!("{}.lock", file.path().display());
        chown(&lock, Some(12345), None).unwrap();
        assert!(change().is_err());
        chown(&lock, Some(0), None).unwrap();
        chown(folder.path(), Some(12345), None).unwrap();
        let error = file.read().unwrap_err();
        assert!(
            matches!(error.problem(), KnownPeersProblem::Folder { .. }),
            "{error}"
        );
        assert!(change().is_err());
        // That nothing is there is no news that one can rely on either.
        fs::remove_file(file.path()).unwrap();
        assert!(file.read().is_err());
        chown(folder.path(), Some(0), None).unwrap();
        assert_eq!(file.read().unwrap(), KnownPeers::default());
    }
    chmod(folder.path(), 0o777);
    let error = file.read().unwrap_err();
    assert!(error.to_string().contains("chmod o-w"), "{error}");
    assert!(!error.to_string().contains('\n'));
    assert!(change().is_err());
}
