#!/usr/bin/env bash
# Runs peers that others wrote (the folder given, which has their README) against this build's examples, and
# prints the last line of each end. It fails when one of them does.
#
#   tests/interop/run-shared.sh FOLDER [onion|serial|link|yamux]…  all of them without a word
#
#   onion   OLP/1 in both roles over TCP, a pty opened by either side, and a child's standard input and output
#   serial  the same over two ptys joined by a paced line (921,600 baud, no noise), both roles at once
#   link    serve and forward over two ptys joined at 115,200 baud with noise: a transfer with its SHA-256, and a
#           conversation beside it; SEEDS="1 2 3" and BER=1e-5 choose others
#   yamux   YTP/1 as client and as server against each peer: plain and over TLS, usual and 16 MiB windows
#
# Only loopback is used; each program has a time limit of its own.
set -uo pipefail
shared=$(cd "${1:?the folder of the peers}" && pwd) || exit 2
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release -p cepa --examples || exit 1
examples=$(cd "$target/release/examples" && pwd)
mkdir -p "$target/interop"
work=$(mktemp -d "$(cd "$target/interop" && pwd)/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
built=$(cd "$target/interop" && pwd)/peers # the others' programs, kept for the next run

certs=$work/certs
bash "$shared/common/mkcerts.sh" "$certs" || exit 1
peer=(python3 "$shared/onion/stdlib_onion.py")
ours=("$examples/onion_peer")
common=(--certs "$certs" --limit 200)
failures=0

# The last verdict in a file, and whether it is PASS.
verdict() { # WHAT FILE
    local line
    line=$(grep -aE '^(PASS|FAIL)' "$2" | tail -n 1)
    printf '%-34s %s\n' "$1" "${line:-FAIL said nothing: $(tail -n 3 "$2" | tr '\n' ' ')}"
    [[ $line == PASS* ]] || failures=$((failures + 1))
}

wait_for_file() { # FILE PID
    local tries
    for ((tries = 0; tries < 400; tries++)); do
        [ -e "$1" ] && return 0
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

# One end opens (listens, or makes a pty), the other goes where the first says; both have to pass.
pair() { # WHAT OPENING GOING  FIRST… -- SECOND…
    local what=$1 opening=$2 going=$3 first=() pid
    shift 3
    while [ "$1" != -- ]; do first+=("$1"); shift; done
    shift
    rm -f "$work/port"
    # shellcheck disable=SC2086
    "${first[@]}" $opening --portfile "$work/port" "${common[@]}" >"$work/one" 2>&1 &
    pid=$!
    if wait_for_file "$work/port" "$pid"; then
        "$@" "$going" "$(cat "$work/port")" "${common[@]}" >"$work/two" 2>&1
    else
        echo "FAIL not started" >"$work/two"
    fi
    wait "$pid"
    verdict "$what, one end" "$work/one"
    verdict "$what, other end" "$work/two"
}

# A child's verdict is on its standard error; the parent's on standard output.
child() { # WHAT CHILD-COMMAND PARENT…
    local what=$1 command=$2
    shift 2
    "$@" --exec "$command" "${common[@]}" >"$work/one" 2>"$work/two"
    verdict "$what, parent" "$work/one"
    verdict "$what, child" "$work/two"
}

onion() {
    pair "tcp, peer drives" "--listen 0" --connect "${ours[@]}" respond -- "${peer[@]}" drive
    pair "tcp, cepa drives" "--listen 0" --connect "${peer[@]}" respond -- "${ours[@]}" drive
    pair "tcp, peer drives strictly" "--listen 0" --connect "${ours[@]}" respond --strict -- "${peer[@]}" drive --strict
    pair "tcp, cepa drives strictly" "--listen 0" --connect "${peer[@]}" respond --strict -- "${ours[@]}" drive --strict
    pair "pty of peer, peer drives" --open-pty --tty "${peer[@]}" drive -- "${ours[@]}" respond
    pair "pty of peer, cepa drives" --open-pty --tty "${peer[@]}" respond -- "${ours[@]}" drive
    child "stdio, peer drives its child" "${ours[*]} respond --stdio ${common[*]}" "${peer[@]}" drive
    child "stdio, peer answers its child" "${ours[*]} drive --stdio ${common[*]}" "${peer[@]}" respond
    child "stdio, cepa drives its child" "${peer[*]} respond --stdio ${common[*]}" "${ours[@]}" drive
    child "stdio, cepa answers its child" "${peer[*]} drive --stdio ${common[*]}" "${ours[@]}" respond
}

# Both roles at once: the line's pace is most of the time.
serial() {
    local role line pids=() cepa other
    for role in drive respond; do
        mkdir -p "$work/$role"
        python3 "$shared/noisy_line.py" --baud 921600 --link-a "$work/$role/a" --link-b "$work/$role/b" \
            --duration 210 --idle 10 >"$work/$role/line" 2>&1 &
        line=$!
        wait_for_file "$work/$role/b" "$line" || { echo "no line"; failures=$((failures + 1)); return; }
        cepa=$role
        other=$([ "$role" = drive ] && echo respond || echo drive)
        # The answering end first: what is written before the other end is raw would be echoed.
        if [ "$cepa" = respond ]; then
            "${ours[@]}" "$cepa" --tty "$work/$role/a" "${common[@]}" >"$work/$role/cepa" 2>&1 &
            pids+=($!)
            sleep 1
            "${peer[@]}" "$other" --tty "$work/$role/b" "${common[@]}" >"$work/$role/peer" 2>&1 &
        else
            "${peer[@]}" "$other" --tty "$work/$role/b" "${common[@]}" >"$work/$role/peer" 2>&1 &
            pids+=($!)
            sleep 1
            "${ours[@]}" "$cepa" --tty "$work/$role/a" "${common[@]}" >"$work/$role/cepa" 2>&1 &
        fi
        pids+=($! "$line")
    done
    wait "${pids[@]}"
    for role in drive respond; do
        verdict "serial line, cepa does $role: cepa" "$work/$role/cepa"
        verdict "serial line, cepa does $role: peer" "$work/$role/peer"
        verdict "serial line, cepa does $role: line" "$work/$role/line"
    done
}

# All seeds at once: each takes what its line takes.
link() {
    local seed pids=()
    cargo build --quiet --release -p cepa-cli || { failures=$((failures + 1)); return; }
    for seed in ${SEEDS:-1 2 3}; do
        python3 tests/interop/serial_link.py --cepa "$target/release/cepa" --seed "$seed" \
            --line "python3 $shared/noisy_line.py --baud 115200 --ber ${BER:-1e-5} --seed $seed" \
            >"$work/link-$seed" 2>&1 &
        pids+=($!)
    done
    wait "${pids[@]}"
    for seed in ${SEEDS:-1 2 3}; do
        verdict "noisy line, bit errors ${BER:-1e-5}, seed $seed" "$work/link-$seed"
    done
}

yamux() {
    bash "$shared/yamux/build.sh" "$built" || { failures=$((failures + 1)); return; }
    local peers=go,rust-yamux,tokio-yamux tls window options
    for tls in "" --tls; do
        for window in "" 16777216; do
            options=()
            [ -n "$window" ] && options=(--window "$window")
            # cepa's own windows are set in its command; the matrix sets the others'.
            # shellcheck disable=SC2086
            for ends in "--clients cepa --servers $peers,cepa" "--clients $peers --servers cepa"; do
                python3 "$shared/yamux/matrix.py" --dir "$built" --certs "$certs" $tls $ends \
                    ${window:+--window "$window" --scenario window} \
                    --extra-client "cepa=$examples/mux_peer client ${options[*]:-}" \
                    --extra-server "cepa=$examples/mux_peer server ${options[*]:-}" >"$work/matrix" 2>&1
                grep -aE '^(FAIL|KNOWN)|FAILED' "$work/matrix" | grep -av '^FAIL yamux matrix'
                verdict "yamux ${tls:-plain} ${window:-usual} ${ends%% --servers*}" "$work/matrix"
            done
        done
    done
}

if [ $# = 0 ]; then
    set -- onion serial link yamux
fi
for part in "$@"; do
    case $part in
        onion | serial | link | yamux) "$part" ;;
        *) echo "unknown part: $part"; exit 2 ;;
    esac
done
echo "shared peers: $failures failures"
[ "$failures" = 0 ]
