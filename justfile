# `just` lists the recipes; each is one command that also works without just.

default:
    @just --list

# The main job on every transport, in one process
demo:
    cargo run --release -- demo

# The small program for a board, its size, and a session that it serves
board:
    bash tests/board.sh

# What the README names
test:
    cargo test --workspace

# What a commit has to pass
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The test peers in other languages: a missing tool fails instead of skipping
interop:
    CEPA_REQUIRE_INTEROP=1 cargo test --test interop_python --test interop_openssl --test interop_go

# One fuzz target for some seconds: `just fuzz endpoint 60`
fuzz target seconds="20":
    RUSTC_BOOTSTRAP=1 cargo fuzz run --dev -s none {{ target }} -- -max_total_time={{ seconds }}

# The Debian package, installed below an empty folder and looked at; needs cargo-deb
package:
    dist/deb --check

# Licences, bans, sources and, where the advisory database can be had, advisories
deny:
    cargo deny check

# The whole table, cepa beside its rivals, in one run, as text and plot in target/bench
bench:
    cargo run --release -p cepa-bench -- ratios --out target/bench

# Everything, as on the build machine
ci:
    bash .ci/run
