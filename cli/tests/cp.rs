//! `cepa cp` as a person types it: real processes, files on a disk.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;

use common::{Place, Server, finish, noise, text};

/// A server with the folder `srv` as the services `up` and `ro`, and a folder `here`.
struct Pair {
    place: Place,
    server: Server,
    base: String,
}

fn pair() -> Pair {
    pair_at(Place::new(), "tcp:127.0.0.1:0")
}

fn pair_at(place: Place, at: &str) -> Pair {
    for folder in ["srv", "here"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    let (identity, _) = place.identity("server.pem");
    let srv = place.text("srv");
    let (up, ro) = (format!("up=files:{srv}"), format!("ro=files:{srv},ro"));
    let words = [at, "--identity", &identity, "--allow", "any", "--service", &up, "--service", &ro];
    let server = place.serve(&words);
    let base = format!("cepa://{}@{}", server.id(), server.address());
    assert!(place.run(&["id", "show"]).status.success());
    Pair { place, server, base }
}

impl Pair {
    /// A path of the server.
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Runs `cepa cp` in the folder `here`.
    fn cp(&self, words: &[&str]) -> Output {
        finish(self.command(words).spawn().unwrap())
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.place.cepa(&[&["cp"], words].concat());
        command.current_dir(self.place.path("here"));
        command
    }

    #[track_caller]
    fn copies(&self, words: &[&str]) -> String {
        let output = self.cp(words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
        text(&output.stderr)
    }

    /// Runs it, and gives the lines that it says where it ends with this code.
    #[track_caller]
    fn fails(&self, words: &[&str], code: i32) -> String {
        let output = self.cp(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.lines().last().unwrap().starts_with("cepa: "), "{said}");
        said
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.place.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[track_caller]
    fn has(&self, path: &str, bytes: &[u8]) {
        let found = fs::read(self.place.path(path));
        let found = found.unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(found == bytes, "{path}: other bytes");
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.place.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn set_time(path: &Path, seconds: u64, nanos: u32) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
    let file = fs::File::open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn a_file_goes_up_and_comes_down_with_its_time_and_mode() {
    let pair = pair();
    let data = noise(700_000);
    pair.put("here/fw.bin", &data);
    let here = pair.place.path("here/fw.bin");
    fs::set_permissions(&here, fs::Permissions::from_mode(0o640)).unwrap();
    set_time(&here, 981_173_106, 789_000_000);
    let said = pair.copies(&["fw.bin", &pair.at("up/")]);
    assert!(said.contains("1 file"), "{said}");
    pair.copies(&[&pair.at("ro/fw.bin"), "back"]);
    for path in ["srv/fw.bin", "here/back"] {
        pair.has(path, &data);
        let meta = fs::metadata(pair.place.path(path)).unwrap();
        let found = (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec());
        assert_eq!(found, (0o640, 981_173_106, 789_000_000), "{path}");
    }
    assert_eq!(pair.names("srv"), ["fw.bin"]);
    assert_eq!(pair.names("here"), ["back", "fw.bin"]);
}

#[test]
fn folders_and_names_of_any_bytes_go_both_ways() {
    let pair = pair();
    let odd: &[&[u8]] = &[b"two words", b"-n", b"\xff\xfe", b"a\nb", b"@x", b"%41", b"\xc3\xbc", b"..."];
    for name in odd {
        pair.put("here/tree/sub/x", b"");
        let path = pair.place.path("here/tree/sub").join(OsStr::from_bytes(name));
        fs::write(path, name).unwrap();
    }
    fs::create_dir_all(pair.place.path("here/tree/empty/er")).unwrap();
    set_time(&pair.place.path("here/tree/sub"), 1_000_000_000, 0);
    fs::set_permissions(pair.place.path("here/tree/empty"), fs::Permissions::from_mode(0o750)).unwrap();
    pair.copies(&["tree", &pair.at("up")]);
    pair.copies(&["-r", &pair.at("up/tree"), "new"]);
    pair.copies(&[&pair.at("up/tree/."), "inside/"]);
    for tree in ["srv/tree", "here/new", "here/inside"] {
        for name in odd {
            let path = pair.place.path(tree).join("sub").join(OsStr::from_bytes(name));
            assert_eq!(fs::read(&path).unwrap(), *name, "{path:?}");
        }
        let of = |path: &str| fs::metadata(pair.place.path(tree).join(path)).unwrap();
        assert_eq!(of("sub").mtime(), 1_000_000_000);
        assert_eq!(of("empty").mode() & 0o777, 0o750);
        assert!(of("empty/er").is_dir());
    }
}

#[test]
fn the_destination_is_a_folder_or_a_new_name_as_with_cp() {
    let pair = pair();
    pair.put("here/a", b"a");
    pair.put("here/b", b"b");
    pair.put("srv/folder/keep", b"keep");
    for (words, made) in [
        (&["a", "up/x"][..], "srv/x"),
        (&["a", "up/folder"], "srv/folder/a"),
        (&["a", "up/folder/y"], "srv/folder/y"),
        (&["a", "up/made/"], "srv/made/a"),
        (&["b", "a", "up/folder/"], "srv/folder/a"),
        (&["./a", "up"], "srv/a"),
        (&["../here/a", "up/z"], "srv/z"),
    ] {
        let (to, from) = words.split_last().unwrap();
        let to = pair.at(to);
        pair.copies(&[from, &[to.as_str()]].concat());
        pair.has(made, b"a");
    }
    pair.has("srv/folder/b", b"b");
    pair.has("srv/folder/keep", b"keep");
    for (words, why) in [
        (&["a", "b", "up/x"][..], "x: not a folder"),
        (&["a", "b", "up/none"], "none: there is no such folder; give none/ to make it"),
        (&["a", "up/none/x"], "there is no folder none"),
        (&["a", "up/x/"], "not a folder"),
    ] {
        let (to, from) = words.split_last().unwrap();
        let to = pair.at(to);
        let said = pair.fails(&[from, &[to.as_str()]].concat(), 7);
        assert!(said.contains(why), "{said}");
    }
    // The same here.
    pair.copies(&[&pair.at("up/x"), &pair.at("up/folder"), "."]);
    pair.has("here/folder/keep", b"keep");
    pair.copies(&[&pair.at("up/folder"), "renamed"]);
    pair.has("here/renamed/keep", b"keep");
    let said = pair.fails(&[&pair.at("up/x"), "none/x"], 8);
    assert!(said.contains("there is no folder none"), "{said}");
}

#[test]
fn symlinks_and_special_files_are_skipped_and_told() {
    let pair = pair();
    pair.put("here/tree/f", b"f");
    pair.put("secret", b"secret");
    symlink("../../secret", pair.place.path("here/tree/link")).unwrap();
    symlink("f", pair.place.path("here/tree/inner")).unwrap();
    symlink("tree/f", pair.place.path("here/named")).unwrap();
    let fifo = pair.place.path("here/tree/fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let said = pair.copies(&["tree", &pair.at("up")]);
    for name in ["tree/link", "tree/inner"] {
        assert!(said.contains(&format!("warning: {name}: skipped, since it is a symlink")), "{said}");
    }
    assert!(said.contains("warning: tree/fifo: skipped"), "{said}");
    assert_eq!(pair.names("srv/tree"), ["f"]);
    // What a person names is followed.
    pair.copies(&["named", &pair.at("up")]);
    pair.has("srv/named", b"f");
    // The same in the other direction.
    symlink("../secret", pair.place.path("srv/out")).unwrap();
    symlink("tree", pair.place.path("srv/in")).unwrap();
    let said = pair.copies(&[&pair.at("up/."), "all/"]);
    assert!(said.contains("/out: skipped"), "{said}");
    pair.copies(&[&pair.at("up/in/f"), "through"]);
    pair.has("here/through", b"f");
    let said = pair.fails(&[&pair.at("up/out"), "."], 10);
    assert!(said.contains("it leads out of the folder"), "{said}");
}
