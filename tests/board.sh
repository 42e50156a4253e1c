#!/usr/bin/env bash
# The small program for a board: builds it, prints what it is made of, holds its size to a bound, and has it serve a session.
#
# Memory is a figure, and no bound: it depends on the kernel's page size, and on what of the program has been touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET=x86_64-unknown-linux-musl
# Bytes of the file. The size is the same for the same sources and compiler; another compiler moves it by some per cent. It grew by 110 kB with
# TLS configurations that connections share, small first windows, opens without a second task, and options that say what to write.
MOST=3750000

if ! rustc --print target-libdir --target "$TARGET" 2>/dev/null | xargs test -d; then
    echo "SKIPPED: no standard library for $TARGET here (rustup target add $TARGET)"
    exit 0
fi
# ring has parts in C.
if command -v musl-gcc >/dev/null; then
    export CC_x86_64_unknown_linux_musl=musl-gcc
fi
cargo board --quiet --locked --target "$TARGET"
program=$PWD/target/$TARGET/board/cepa

size=$(stat -c %s "$program")
size -A -d "$program" | awk '$2 > 10000 && /^\./ { printf "%-14s %9d bytes\n", $1, $2 }'
awk -v size="$size" -v most="$MOST" 'BEGIN { printf "a static program of %d bytes (%.2f MiB), %d at most\n", size, size / 1048576, most }'
if readelf -l "$program" | grep -q INTERP; then
    echo "it wants a dynamic loader" >&2
    exit 1
fi

# One session, of two of them: bytes there, through a command, and back.
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -r "$folder"' EXIT
mkdir "$folder/board" "$folder/bench"
board=$(CEPA_CONFIG_DIR=$folder/board "$program" id show 2>/dev/null)
bench=$(CEPA_CONFIG_DIR=$folder/bench "$program" id show 2>/dev/null)
mkfifo "$folder/said"
CEPA_CONFIG_DIR=$folder/board "$program" serve tcp:127.0.0.1:0 --service cat=exec:cat --allow "$bench" 2>"$folder/said" &
pid=$!
exec 3<"$folder/said"
read -r -t 60 line <&3
address=$(sed -n 's/^listening on \([^ ]*\) as .*/\1/p' <<<"$line")
[ -n "$address" ] || { echo "it says: $line" >&2; exit 1; }
# A file that other builds read changes nothing here.
printf '[targets.x]\naddress = "tcp:192.0.2.1:1"\n' >"$folder/bench/config.toml"
head -c 3000000 /dev/urandom >"$folder/bytes"
CEPA_CONFIG_DIR=$folder/bench timeout 120 "$program" connect "$address" cat --expect "$board" <"$folder/bytes" >"$folder/back" 2>"$folder/note"
grep -q "config.toml is ignored" "$folder/note"
cmp "$folder/bytes" "$folder/back"
printf 'proxy = "env"\n' >"$folder/bench/config.toml"
! CEPA_CONFIG_DIR=$folder/bench "$program" connect "$address" cat --expect "$board" </dev/null 2>"$folder/why"
grep -q "it may name a proxy" "$folder/why"
awk '/^(VmHWM|RssAnon|RssFile)/ { memory = memory sprintf(" %s %.2f MiB", $1, $2 / 1024) } END { print "a session served, 3 MB each way:" memory }' \
    "/proc/$pid/status"

# What is left out says so, and nothing of it is shown.
! "$program" relay tcp:127.0.0.1:0 2>"$folder/why"
grep -q "was built without it" "$folder/why"
"$program" help >"$folder/help"
! grep -qE '^  (relay|cp|demo|forward) ' "$folder/help"
if [ "$size" -gt "$MOST" ]; then
    echo "the program has $size bytes, and $MOST at most: say in tests/board.sh why, or leave something out (cli/Cargo.toml)" >&2
    exit 1
fi
