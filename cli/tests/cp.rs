//! `cepa cp` as a person types it: real processes, files on a disk.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cepa::transports::testkit::{LineSettings, Noise};
use common::desk::Desk;
use common::line::join;
use common::proxy::Proxy;
use common::{PATIENCE, Place, Server, finish, noise, text};

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
    let words = [
        at,
        "--identity",
        &identity,
        "--allow",
        "any",
        "--service",
        &up,
        "--service",
        &ro,
    ];
    let server = place.serve(&words);
    let base = format!("cepa://{}@{}", server.id(), server.address());
    assert!(place.run(&["id", "show"]).status.success());
    Pair {
        place,
        server,
        base,
    }
}

impl Pair {
    /// Starts the server anew, with the one service that can be written to.
    fn serve_again(&mut self, at: &str) {
        let (identity, up) = (
            self.place.text("server.pem"),
            format!("up=files:{}", self.place.text("srv")),
        );
        let words = ["--identity", &identity, "--allow", "any", "--service", &up];
        self.server = self.place.serve(&[&[at][..], &words].concat());
    }

    /// A path of the server.
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Runs `cepa cp` in the folder `here`.
    fn cp(&self, words: &[&str]) -> Output {
        finish(self.command(words).spawn().unwrap())
    }

    fn command(&self, words: &[&str]) -> Command {
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
    let odd: &[&[u8]] = &[
        b"two words",
        b"-n",
        b"\xff\xfe",
        b"a\nb",
        b"@x",
        b"%41",
        b"\xc3\xbc",
        b"...",
    ];
    for name in odd {
        pair.put("here/tree/sub/x", b"");
        let path = pair
            .place
            .path("here/tree/sub")
            .join(OsStr::from_bytes(name));
        fs::write(path, name).unwrap();
    }
    fs::create_dir_all(pair.place.path("here/tree/empty/er")).unwrap();
    set_time(&pair.place.path("here/tree/sub"), 1_000_000_000, 0);
    fs::set_permissions(
        pair.place.path("here/tree/empty"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    pair.copies(&["tree", &pair.at("up")]);
    pair.copies(&["-r", &pair.at("up/tree"), "new"]);
    pair.copies(&[&pair.at("up/tree/."), "inside/"]);
    for tree in ["srv/tree", "here/new", "here/inside"] {
        for name in odd {
            let path = pair
                .place
                .path(tree)
                .join("sub")
                .join(OsStr::from_bytes(name));
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
        (
            &["a", "b", "up/none"],
            "none: there is no such folder; give none/ to make it",
        ),
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
        assert!(
            said.contains(&format!("warning: {name}: skipped, since it is a symlink")),
            "{said}"
        );
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

#[test]
fn a_folder_that_is_read_only_refuses_writes_in_its_own_words() {
    let pair = pair();
    pair.put("here/a", b"a");
    let said = pair.fails(&["a", &pair.at("ro/")], 7);
    assert!(said.contains("the service is read-only"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(pair.names("srv").is_empty());
}

#[test]
fn what_cannot_be_copied_has_a_line_and_does_not_stop_the_rest() {
    let pair = pair();
    pair.put("here/a", b"a");
    pair.put("here/b", b"b");
    pair.put("srv/a/in the way", b"");
    let said = pair.fails(&["a", "gone", "b", &pair.at("up")], 10);
    assert!(
        said.contains("cepa: gone: no such file or directory\n"),
        "{said}"
    );
    assert!(
        said.contains("cepa: a: there is a folder of this name\n"),
        "{said}"
    );
    assert!(said.contains("copied 1 file, "), "{said}");
    assert!(
        said.ends_with("cepa: 2 were not copied; each has a line above\n"),
        "{said}"
    );
    pair.has("srv/b", b"b");
    let said = pair.fails(&[&pair.at("up/gone"), &pair.at("up/b"), "new/"], 10);
    assert!(
        said.contains("cepa: gone: no such file or directory\n"),
        "{said}"
    );
    pair.has("here/new/b", b"b");
}

#[test]
fn a_path_that_leads_out_of_the_folder_is_refused() {
    let pair = pair();
    pair.put("here/a", b"a");
    pair.put("secret", b"secret");
    symlink("..", pair.place.path("srv/out")).unwrap();
    for path in [
        "up/../secret",
        "up//etc/hostname",
        "up/out/secret",
        "up/x/../../secret",
    ] {
        let said = pair.fails(&[&pair.at(path), "got"], 10);
        assert!(!pair.place.path("here/got").exists(), "{path}: {said}");
    }
    for path in ["up/../new", "up//tmp/cepa-cp-test/", "up/out/new", "up/.."] {
        let said = pair.fails(&["a", &pair.at(path)], 7);
        assert!(
            said.contains("leads out of the folder") || said.contains("not a folder"),
            "{path}: {said}"
        );
    }
    assert!(!pair.place.path("new").exists());
    assert!(!Path::new("/tmp/cepa-cp-test").exists());
}

#[test]
fn wrong_sides_are_told_what_to_give() {
    let pair = pair();
    pair.put("here/a", b"a");
    let (up, ro) = (pair.at("up"), pair.at("ro"));
    for (words, why) in [
        (&["a", "b"][..], "give a peer's as @NAME:SERVICE/PATH"),
        (&[&up, &ro], "both sides are peers"),
        (&["a", &up, "b"], "copy them one after the other"),
        (&[&up, &ro, "b"], "of several services"),
        (&["@nobody/up", "b"], "@NAME:SERVICE/PATH"),
    ] {
        let said = pair.fails(words, 2);
        assert!(said.contains(why), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = pair.fails(&["a", &format!("{}/none/", pair.base)], 7);
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = pair.place.run(&["connect", &format!("{}/up", pair.base)]);
    assert!(
        text(&said.stderr).contains("use it with `cepa cp`"),
        "{}",
        text(&said.stderr)
    );
}

#[test]
fn names_of_peers_stand_before_a_colon_and_the_only_service_needs_no_name() {
    let place = Place::new();
    fs::create_dir_all(place.path("srv")).unwrap();
    let (identity, id) = place.identity("server.pem");
    let up = format!("up=files:{}", place.text("srv"));
    let server = place.serve(&[
        "tcp:127.0.0.1:0",
        "--identity",
        &identity,
        "--allow",
        "any",
        "--service",
        &up,
        "--service",
        "e=echo:",
    ]);
    place.succeeds(&["peer", "add", "board", &id, "--at", &server.address()]);
    fs::write(place.path("a"), "a").unwrap();
    let a = place.text("a");
    for (to, made) in [("@board:up/x", "x"), ("@board:/y", "y"), ("@board:", "a")] {
        let output = place.run(&["cp", "-q", &a, to]);
        assert_eq!(
            (output.status.code(), text(&output.stderr).as_str()),
            (Some(0), ""),
            "{to}"
        );
        assert_eq!(fs::read(place.path("srv").join(made)).unwrap(), b"a");
    }
}

/// Makes the target `board`.
fn target(place: &Place, address: &str, id: &str) {
    let folder = place.path("config");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    fs::write(
        &file,
        format!("[targets.board]\naddress = {address:?}\nexpect = {id:?}\n"),
    )
    .unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a copy says of itself as JSON: bytes of all files, and bytes that were transferred.
#[track_caller]
fn summary(output: &Output) -> (u64, u64) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let mut lines = said
        .lines()
        .rev()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let line = lines.find(|line| !line["transferred"].is_null()).unwrap();
    assert!(line["seconds"].is_f64(), "{line}");
    let number = |name: &str| line[name].as_u64().unwrap();
    (number("bytes"), number("transferred"))
}

/// Waits until a file has so many bytes.
#[track_caller]
fn wait_for_size(path: &Path, size: u64) {
    let begun = Instant::now();
    while fs::metadata(path).map_or(0, |meta| meta.len()) < size {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} does not grow",
            path.display()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Bytes of a file that is on its way for a while.
const LARGE: usize = 48 * 1024 * 1024;
const SOME: u64 = 1024 * 1024;

#[test]
fn an_upload_whose_client_was_killed_goes_on_from_what_is_there() {
    let pair = pair();
    let data = noise(LARGE);
    pair.put("here/big", &data);
    let part = pair.place.path("srv/.big.cepa-part");
    let child = pair.command(&["big", &pair.at("up/")]).spawn().unwrap();
    wait_for_size(&part, SOME);
    kill(child);
    assert!(!pair.place.path("srv/big").exists());
    let output = pair.cp(&["--log-format", "json", "big", &pair.at("up/")]);
    let (bytes, transferred) = summary(&output);
    assert_eq!(bytes, LARGE as u64);
    assert!(transferred <= bytes - SOME, "{transferred} of {bytes}");
    pair.has("srv/big", &data);
    assert_eq!(pair.names("srv"), ["big"]);
    // What is there is not sent again.
    let output = pair.cp(&["--log-format", "json", "big", &pair.at("up/")]);
    assert_eq!(summary(&output), (LARGE as u64, 0));
}

#[test]
fn an_upload_whose_client_fell_silent_goes_on_too() {
    let pair = pair();
    let data = noise(LARGE);
    pair.put("here/big", &data);
    let proxy = Proxy::to(&pair.server.address());
    let via = format!("cepa://{}@{}/up/", pair.server.id(), proxy.address());
    let part = pair.place.path("srv/.big.cepa-part");
    let child = pair.command(&["big", &via]).spawn().unwrap();
    wait_for_size(&part, SOME);
    proxy.fall_silent();
    kill(child);
    let output = pair.cp(&["--log-format", "json", "big", &pair.at("up/")]);
    let (bytes, transferred) = summary(&output);
    assert!(transferred <= bytes - SOME, "{transferred} of {bytes}");
    pair.has("srv/big", &data);
    assert_eq!(pair.names("srv"), ["big"]);
}

#[test]
fn a_download_whose_client_was_killed_goes_on_from_what_is_there() {
    let pair = pair();
    let data = noise(LARGE);
    pair.put("srv/big", &data);
    let part = pair.place.path("here/.new.cepa-part");
    let child = pair.command(&[&pair.at("ro/big"), "new"]).spawn().unwrap();
    wait_for_size(&part, SOME);
    kill(child);
    let output = pair.cp(&["--log-format", "json", &pair.at("ro/big"), "new"]);
    let (bytes, transferred) = summary(&output);
    assert!(transferred <= bytes - SOME, "{transferred} of {bytes}");
    pair.has("here/new", &data);
    assert_eq!(pair.names("here"), ["new"]);
}

/// A folder that the first run has made is no folder to copy into for the second one.
#[test]
fn a_folder_on_its_way_to_a_new_name_goes_on_there() {
    let pair = pair();
    let data = noise(LARGE);
    for (from, to, copy) in [
        ("here/d", "srv/new", ["d".to_owned(), pair.at("up/new")]),
        ("srv/d", "here/back", [pair.at("ro/d"), "back".to_owned()]),
    ] {
        fs::create_dir_all(pair.place.path(from)).unwrap();
        pair.put(&format!("{from}/a"), b"small");
        pair.put(&format!("{from}/big"), &data);
        let words = [copy[0].as_str(), &copy[1]];
        let part = pair.place.path(&format!("{to}/.big.cepa-part"));
        let child = pair.command(&words).spawn().unwrap();
        wait_for_size(&part, SOME);
        kill(child);
        let output = pair.cp(&[&["--log-format", "json"], &words[..]].concat());
        let (bytes, transferred) = summary(&output);
        assert!(transferred <= bytes - SOME, "{transferred} of {bytes}");
        pair.has(&format!("{to}/big"), &data);
        assert_eq!(pair.names(to), ["a", "big"]);
        // It is a folder like others then, and one of another name was never meant.
        pair.cp(&words);
        assert_eq!(pair.names(to), ["a", "big", "d"]);
    }
    assert_eq!(pair.names("srv"), ["d", "new"]);
    assert_eq!(pair.names("here"), ["back", "d"]);
}

/// Another source than the one whose copy is not finished goes into the folder.
#[test]
fn an_unfinished_copy_to_a_new_name_takes_no_other_folder() {
    let pair = pair();
    for name in ["d", "e"] {
        fs::create_dir_all(pair.place.path(&format!("here/{name}"))).unwrap();
        pair.put(&format!("here/{name}/f"), name.as_bytes());
    }
    fs::create_dir_all(pair.place.path("srv/new")).unwrap();
    pair.put("srv/.new.cepa-part", b"d");
    pair.copies(&["e", &pair.at("up/new")]);
    assert_eq!(pair.names("srv/new"), ["e"]);
    pair.copies(&["d", &pair.at("up/new/")]);
    assert_eq!(pair.names("srv/new"), ["d", "e"]);
    pair.copies(&["d", &pair.at("up/new")]);
    assert_eq!(pair.names("srv/new"), ["d", "e", "f"]);
    assert_eq!(pair.names("srv"), ["new"]);
}

/// With `--reconnect` the process itself asks a second time.
#[test]
fn a_folder_goes_on_under_its_new_name_at_a_server_that_was_restarted() {
    let mut pair = pair();
    let data = noise(LARGE);
    fs::create_dir_all(pair.place.path("here/d")).unwrap();
    pair.put("here/d/big", &data);
    let at = pair.server.address();
    let child = pair
        .command(&["--reconnect", "d", &pair.at("up/new")])
        .spawn()
        .unwrap();
    wait_for_size(&pair.place.path("srv/new/.big.cepa-part"), SOME);
    pair.server.signal("KILL");
    let start = Instant::now();
    while pair.server.is_running() {
        assert!(start.elapsed() < PATIENCE, "it runs on");
        thread::sleep(Duration::from_millis(5));
    }
    pair.serve_again(&at);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    pair.has("srv/new/big", &data);
    assert_eq!(pair.names("srv"), ["new"]);
    assert_eq!(pair.names("srv/new"), ["big"]);
}

/// What was asked for by name and is not copied is an error.
/// A folder that cannot be made has one line, and what is in it has none.
#[test]
fn a_folder_in_whose_place_a_file_stands_has_one_line() {
    let pair = pair();
    for (from, there) in [("here", "srv"), ("srv", "here")] {
        pair.put(&format!("{from}/dir-{from}/a"), b"a");
        pair.put(&format!("{from}/dir-{from}/b"), b"b");
        pair.put(&format!("{there}/dir-{from}"), b"in the way");
    }
    for words in [
        &["dir-here", &pair.at("up")][..],
        &[&pair.at("up/dir-srv"), "."],
    ] {
        let said = pair.fails(words, 10);
        let of_files = said
            .lines()
            .filter(|it| it.contains("there is a file of this name"));
        assert_eq!(of_files.count(), 1, "{said}");
        assert!(
            said.contains("cepa: 1 was not copied, with 2 files in it; each has a line above"),
            "{said}"
        );
    }
}

#[test]
fn a_pipe_that_was_named_is_an_error() {
    let pair = pair();
    for folder in ["here", "srv"] {
        let fifo = pair.place.text(&format!("{folder}/fifo"));
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    }
    for (from, to) in [
        ("fifo".to_owned(), pair.at("up/x")),
        (pair.at("up/fifo"), "x".to_owned()),
    ] {
        let line = pair.fails(&[&from, &to], 10);
        assert!(
            line.contains("a device, pipe or socket can't be copied"),
            "{line}"
        );
    }
    pair.put("srv/y", b"hello");
    for to in ["/dev/full", "fifo"] {
        let line = pair.fails(&[&pair.at("up/y"), to], 8);
        assert!(line.contains("a device, pipe or socket of this"), "{line}");
    }
    let mut child = pair.command(&["/dev/stdin", &pair.at("up/x")]);
    let output = finish(child.stdin(Stdio::piped()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(10), "{}", text(&output.stderr));
}

#[test]
fn a_source_that_has_changed_meanwhile_is_sent_anew() {
    let pair = pair();
    let mut data = noise(LARGE);
    pair.put("here/big", &data);
    let part = pair.place.path("srv/.big.cepa-part");
    let child = pair.command(&["big", &pair.at("up/")]).spawn().unwrap();
    wait_for_size(&part, SOME);
    kill(child);
    data[1000] ^= 1;
    pair.put("here/big", &data);
    let output = pair.cp(&["--log-format", "json", "big", &pair.at("up/")]);
    let (bytes, transferred) = summary(&output);
    assert_eq!(bytes, transferred);
    pair.has("srv/big", &data);
    assert_eq!(pair.names("srv"), ["big"]);
}

#[test]
fn a_transfer_survives_a_lost_connection_and_with_reconnect_a_killed_server() {
    let mut pair = pair();
    let data = noise(LARGE);
    pair.put("here/big", &data);
    let proxy = Proxy::to(&pair.server.address());
    let via = format!("cepa://{}@{}/up/", pair.server.id(), proxy.address());
    let part = pair.place.path("srv/.big.cepa-part");
    let child = pair
        .command(&["--reconnect", "--log-format", "json", "big", &via])
        .spawn()
        .unwrap();
    wait_for_size(&part, SOME);
    proxy.cut();
    wait_for_size(&part, 4 * SOME);
    proxy.down();
    // Killed, and started again elsewhere.
    let (identity, up) = (
        pair.place.text("server.pem"),
        format!("up=files:{}", pair.place.text("srv")),
    );
    pair.server.signal("KILL");
    let again = [
        "tcp:127.0.0.1:0",
        "--identity",
        &identity,
        "--allow",
        "any",
        "--service",
        &up,
    ];
    pair.server = pair.place.serve(&again);
    proxy.lead_to(&pair.server.address());
    proxy.up();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (bytes, transferred) = summary(&output);
    assert_eq!(bytes, LARGE as u64);
    // All that has reached the disk counts; some was on its way.
    assert!(transferred < bytes + bytes / 2, "{transferred} of {bytes}");
    pair.has("srv/big", &data);
    assert_eq!(pair.names("srv"), ["big"]);
}

#[test]
fn two_uploads_of_one_file_at_once_do_not_mix() {
    let pair = pair();
    let (one, other) = (noise(LARGE), vec![7; LARGE]);
    pair.put("here/1/f", &one);
    pair.put("here/2/f", &other);
    let at = pair.at("up/");
    let children = ["1/f", "2/f"].map(|path| pair.command(&[path, &at]).spawn().unwrap());
    for child in children {
        let output = finish(child);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let found = fs::read(pair.place.path("srv/f")).unwrap();
    assert!(found == one || found == other, "a mixture");
    assert_eq!(pair.names("srv"), ["f"]);
}

#[test]
fn a_full_disk_at_the_far_end_is_told_with_what_was_written() {
    let place = Place::new();
    fs::create_dir_all(place.path("srv")).unwrap();
    let data = noise(3_000_000);
    fs::write(place.path("big"), &data).unwrap();
    fs::write(place.path("small"), "small").unwrap();
    let (identity, id) = place.identity("server.pem");
    // A limit of files instead of a disk: the same error where bytes are written.
    let script = format!(
        "trap '' XFSZ; ulimit -f 2000; exec '{}' serve unix:{}/s --identity '{identity}' --allow any --service up=files:{}",
        common::bin().display(),
        place.dir.path().display(),
        place.text("srv"),
    );
    let mut server = Command::new("sh")
        .args(["-c", &script])
        .env("CEPA_CONFIG_DIR", place.path("config"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !place.path("s").exists() {
        assert!(begun.elapsed() < PATIENCE, "no server");
        thread::sleep(Duration::from_millis(10));
    }
    target(
        &place,
        &format!("unix:{}/s", place.dir.path().display()),
        &id,
    );
    let output = place.run(&["cp", &place.text("big"), &place.text("small"), "@board:up"]);
    let said = text(&output.stderr);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("big: file too large; 1"), "{said}");
    assert!(
        said.contains("of its 3000000 bytes are kept there"),
        "{said}"
    );
    assert!(!place.path("srv/big").exists());
    assert_eq!(fs::read(place.path("srv/small")).unwrap(), b"small");
}

/// A serial line of 115,200 baud with bit errors, and either end killed in the middle.
#[test]
fn over_a_noisy_serial_line_a_copy_goes_on_after_either_end_was_killed() {
    let place = Place::new();
    let line = LineSettings {
        noise: Noise {
            bit_errors: 1e-5,
            ..Noise::default()
        },
        ..LineSettings::new(11_520.0)
    };
    let runtime = join(&place, &line, 1);
    let port = |name: &str| format!("serial:{},baud=115200", place.text(name));
    let (a, b) = (port("a"), port("b"));
    let mut pair = pair_at(place, &b);
    target(&pair.place, &a, &pair.server.id());
    let data = noise(120_000);
    pair.put("here/fw", &data);
    let part = pair.place.path("srv/.fw.cepa-part");
    let child = pair.command(&["fw", "@board:up/"]).spawn().unwrap();
    wait_for_size(&part, 20_000);
    kill(child);
    let child = pair.command(&["fw", "@board:up/"]).spawn().unwrap();
    wait_for_size(&part, 50_000);
    pair.server.signal("KILL");
    kill(child);
    pair.serve_again(&b);
    let output = pair.cp(&["--log-format", "json", "fw", "@board:up/"]);
    let (bytes, transferred) = summary(&output);
    assert_eq!(bytes, 120_000);
    assert!(transferred <= 70_000, "{transferred}");
    pair.has("srv/fw", &data);
    assert_eq!(pair.names("srv"), ["fw"]);
    runtime.shutdown_background();
}

#[test]
fn a_terminal_shows_one_line_with_the_rate_and_the_time_left() {
    let place = Place::new();
    let runtime = join(&place, &LineSettings::new(11_520.0), 1);
    let port = |name: &str| format!("serial:{},baud=115200", place.text(name));
    let (a, b) = (port("a"), port("b"));
    let pair = pair_at(place, &b);
    target(&pair.place, &a, &pair.server.id());
    let data = noise(60_000);
    pair.put("here/a file with a name that is too long for a line", &data);
    let from = pair
        .place
        .text("here/a file with a name that is too long for a line");
    let words = ["cp", &from, "@board:up/fw"];
    let mut desk = Desk::sit_down(&pair.place, &words, (24, 80));
    desk.until("too long for a line");
    desk.until("% ");
    desk.until("/58.59 KiB ");
    desk.until("/s ");
    desk.until(" left");
    let passed = desk.passed.clone();
    let (code, rest) = desk.leave();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("copied 1 file, 58.59 KiB, in "), "{rest}");
    let all = passed + &rest;
    for line in all.split(['\r', '\n']) {
        // What moves the cursor takes no column.
        let shown: String = line
            .split('\u{1b}')
            .map(|part| match part.strip_prefix('[') {
                Some(part) => part
                    .trim_start_matches(|c: char| c.is_ascii_digit())
                    .get(1..)
                    .unwrap_or(""),
                None => part,
            })
            .collect();
        assert!(shown.chars().count() <= 80, "{shown:?}");
    }
    pair.has("srv/fw", &data);
    runtime.shutdown_background();
}

#[test]
fn a_download_whose_server_was_killed_goes_on_from_what_is_there() {
    let mut pair = pair();
    let data = noise(LARGE);
    pair.put("srv/big", &data);
    let part = pair.place.path("here/.big.cepa-part");
    let from = pair.at("ro/big");
    let child = pair.command(&["--no-durable", &from, "."]).spawn().unwrap();
    wait_for_size(&part, SOME);
    pair.server.signal("KILL");
    let output = finish(child);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(!pair.place.path("here/big").exists());
    let (identity, ro) = (
        pair.place.text("server.pem"),
        format!("ro=files:{},ro", pair.place.text("srv")),
    );
    let words = [
        "tcp:127.0.0.1:0",
        "--identity",
        &identity,
        "--allow",
        "any",
        "--service",
        &ro,
    ];
    pair.server = pair.place.serve(&words);
    let from = format!(
        "cepa://{}@{}/ro/big",
        pair.server.id(),
        pair.server.address()
    );
    let output = pair.cp(&["--log-format", "json", &from, "."]);
    let (bytes, transferred) = summary(&output);
    assert!(transferred <= bytes - SOME, "{transferred} of {bytes}");
    pair.has("here/big", &data);
}

#[test]
fn an_interrupt_ends_a_copy_with_a_line_that_says_how_to_go_on() {
    let pair = pair();
    pair.put("here/big", &noise(LARGE));
    let part = pair.place.path("srv/.big.cepa-part");
    let child = pair.command(&["big", &pair.at("up/")]).spawn().unwrap();
    wait_for_size(&part, SOME);
    assert!(common::signal(&child.id().to_string(), "INT"));
    let output = finish(child);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("interrupted; the same command goes on from here"),
        "{said}"
    );
    assert!(!pair.place.path("srv/big").exists());
}
