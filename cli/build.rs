//! What the linker is told for the small program of the profile `board`: a panic ends that, so nobody reads its tables for unwinding, a
//! seventh of it.

use std::env::var;
use std::path::Path;

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
    let mut words = vec![
        format!("-T{folder}/board.ld"),
        "--no-eh-frame-hdr".to_owned(),
        // Addresses that the loader has to put right, in bits.
        "-zpack-relative-relocs".to_owned(),
    ];
    // .cargo/config.toml names the linker where it is called itself, and not by a compiler.
    let by_itself = var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("lld"));
    if by_itself {
        // One of all functions that are the same.
        words.push("--icf=all".to_owned());
    }
    for word in words {
        let by = if by_itself { "" } else { "-Wl," };
        println!("cargo::rustc-link-arg-bins={by}{word}");
    }
}
