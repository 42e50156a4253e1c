//! Private keys under a passphrase.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use common::{Place, bin, finish, text};

/// A private file with a passphrase.
fn secret(place: &Place, name: &str, passphrase: &str) -> String {
    let path = place.text(name);
    fs::write(&path, passphrase).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_key_under_a_passphrase_is_made_used_and_replaced() {
    let place = Place::new();
    let good = secret(&place, "good", "correct horse\nsecond line\n");
    let file = place.text("id.pem");
    let run = |words: &[&str], passphrase: Option<&str>| {
        let mut command = place.cepa(words);
        if let Some(passphrase) = passphrase {
            command.env("CEPA_PASSPHRASE_FILE", passphrase);
        }
        finish(command.spawn().unwrap())
    };
    let new = ["id", "new", "--identity", &file, "--passphrase"];
    let line = common::failed(&run(&new, None), 8);
    assert!(line.contains("CEPA_PASSPHRASE_FILE"), "{line}");
    let empty = secret(&place, "empty", "\n");
    common::failed(&run(&new, Some(&empty)), 2);
    assert!(!place.path("id.pem").exists());
    let output = run(&new, Some(&good));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let id = text(&output.stdout);
    let pem = fs::read_to_string(&file).unwrap();
    assert!(pem.contains("BEGIN ENCRYPTED PRIVATE KEY") && !pem.contains("BEGIN PRIVATE"));

    let show = ["id", "show", "--identity", &file];
    assert_eq!(text(&run(&show, Some(&good)).stdout), id);
    common::failed(&run(&show, None), 8);
    let wrong = secret(&place, "wrong", "incorrect horse");
    let line = common::failed(&run(&show, Some(&wrong)), 8);
    assert!(line.contains("passphrase is wrong"), "{line}");
    fs::set_permissions(&good, fs::Permissions::from_mode(0o644)).unwrap();
    let line = common::failed(&run(&show, Some(&good)), 8);
    assert!(line.contains("chmod 600"), "{line}");
    fs::set_permissions(&good, fs::Permissions::from_mode(0o600)).unwrap();
    common::failed(&run(&show, Some("/nowhere/at/all")), 8);

    // Both keys stay under it.
    let output = run(&["id", "rotate", "--identity", &file], Some(&good));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for entry in fs::read_dir(place.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            let pem = fs::read_to_string(&path).unwrap();
            assert!(!pem.contains("BEGIN PRIVATE KEY"), "{}", path.display());
            let show = ["id", "show", "--identity", path.to_str().unwrap()];
            assert!(run(&show, Some(&good)).status.success());
        }
    }
}

#[test]
fn a_passphrase_in_another_users_file_is_refused() {
    let place = Place::new();
    let (mine, theirs) = (
        secret(&place, "mine", "pony"),
        secret(&place, "theirs", "pony"),
    );
    // Only root gives files away.
    if std::os::unix::fs::chown(&theirs, Some(12345), None).is_err() {
        return;
    }
    let file = place.text("id.pem");
    let make = |passphrase: &str| {
        let mut command = place.cepa(&["id", "new", "--identity", &file, "--passphrase"]);
        finish(
            command
                .env("CEPA_PASSPHRASE_FILE", passphrase)
                .spawn()
                .unwrap(),
        )
    };
    let line = common::failed(&make(&theirs), 8);
    assert!(line.contains("user 12345"), "{line}");
    assert!(make(&mine).status.success());
}

#[test]
fn openssl_takes_it_off_and_puts_it_on() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(
            std::env::var_os("CEPA_REQUIRE_INTEROP").is_none(),
            "no openssl here"
        );
        eprintln!("SKIPPED: no openssl here");
        return;
    }
    let place = Place::new();
    let good = secret(&place, "good", "correct horse");
    let file = place.text("id.pem");
    let mut command = place.cepa(&["id", "new", "--identity", &file, "--passphrase"]);
    let made = finish(command.env("CEPA_PASSPHRASE_FILE", &good).spawn().unwrap());
    let id = text(&made.stdout);
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl").args(words).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    let (open, closed) = (place.text("open.pem"), place.text("closed.pem"));
    let pass = format!("file:{good}");
    openssl(&["pkcs8", "-in", &file, "-passin", &pass, "-out", &open]);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).unwrap();
    // A key alone; its certificate is made anew, and the id is the key's.
    assert_eq!(
        text(&place.run(&["id", "show", "--identity", &open]).stdout),
        id
    );
    for how in [&["-scrypt"][..], &["-v2", "aes256"]] {
        let words = [
            "pkcs8", "-topk8", "-in", &open, "-passout", &pass, "-out", &closed,
        ];
        openssl(&[&words[..], how].concat());
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = place.cepa(&["id", "show", "--identity", &closed]);
        let shown = finish(command.env("CEPA_PASSPHRASE_FILE", &good).spawn().unwrap());
        assert_eq!(text(&shown.stdout), id, "{how:?}: {}", text(&shown.stderr));
    }
}

#[test]
fn a_person_types_it_unseen() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no `script` here to make a terminal with");
        return;
    }
    let place = Place::new();
    let file = place.text("id.pem");
    let at_terminal = |words: &str, typed: &str| {
        let line = format!("{} {words} --identity {file}", bin().display());
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("CEPA_CONFIG_DIR", place.path("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut shown = Vec::new();
        for (asked, line) in typed.lines().enumerate() {
            // Each question ends with a colon and a space.
            while text(&shown).matches(": ").count() <= asked {
                let mut byte = [0];
                stdout.read_exact(&mut byte).unwrap();
                shown.push(byte[0]);
            }
            stdin
                .write_all(
                    format!(
                        "{line}
"
                    )
                    .as_bytes(),
                )
                .unwrap();
        }
        let _ = stdout.read_to_end(&mut shown);
        let status = child.wait().unwrap();
        drop(stdin);
        (status.code(), text(&shown))
    };
    let (code, shown) = at_terminal("id new --passphrase", "secret words\nother words");
    assert_eq!(code, Some(2), "{shown}");
    assert!(!place.path("id.pem").exists());
    let (code, shown) = at_terminal("id new --passphrase", "secret words\nsecret words");
    assert_eq!(code, Some(0), "{shown}");
    let (code, shown) = at_terminal("id show", "secret words");
    assert_eq!(code, Some(0), "{shown}");
}
