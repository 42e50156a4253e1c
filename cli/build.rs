//! What the linker is told for the small program of the profile `board`.

use std::env::var;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=board.ld");
    // Cargo tells a build script nothing of the profile but the folder.
    let of_board = |out: String| Path::new(&out).iter().any(|part| part == "board");
    if !var("OUT_DIR").is_ok_and(of_board) || var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let Ok(folder) = var("CARGO_MANIFEST_DIR") else {
        return;
    };
    let word = |word: &str| println!("cargo::rustc-link-arg-bins={word}");
    // A panic ends this program, so nobody reads its tables for unwinding: a seventh of it.
    word(&format!("-Wl,-T{folder}/board.ld"));
    word("-Wl,--no-eh-frame-hdr");
    if var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("musl") && has_new_musl() {
        // The addresses that are put right at the start, in bits. A dynamic program would not start where glibc is older than 2.36.
        word("-Wl,-zpack-relative-relocs");
    }
    // The linker that comes with Rust keeps one of all functions that are the same.
    if let Some(lld) = lld() {
        word(&format!("-B{}", lld.display()));
        word("-fuse-ld=lld");
        word("-Wl,--icf=all");
    }
}

/// What the compiler says of itself.
fn rustc(words: &[&str]) -> Option<String> {
    let said = Command::new(var("RUSTC").ok()?).args(words).output().ok()?;
    String::from_utf8(said.stdout).ok()
}

/// Rust comes with musl 1.2.5 from 1.93 on; the one before it (1.2.3) does not read such addresses.
fn has_new_musl() -> bool {
    let version = rustc(&["--version"]).unwrap_or_default();
    let minor = version.split('.').nth(1).and_then(|it| it.parse().ok());
    minor.is_some_and(|minor: u32| minor >= 93)
}

/// The folder where a C compiler finds it.
fn lld() -> Option<PathBuf> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib");
    let folder = folder.join(var("HOST").ok()?).join("bin/gcc-ld");
    folder.join("ld.lld").is_file().then_some(folder)
}
