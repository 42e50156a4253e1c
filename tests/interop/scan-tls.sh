#!/usr/bin/env bash
# Two scanners that others wrote, sslyze and testssl.sh, against `cepa serve tcp:`, on loopback.
#
#   tests/interop/scan-tls.sh
#
# It fails on any finding of testssl.sh at or above LOW, on any test of either that did not come to its end, and on any
# version but TLS 1.3. A scanner that is not here is skipped, loudly; with CEPA_REQUIRE_INTEROP set it is required.
#
# What is expected, and no finding:
#   - sslyze does not trust the certificate: it is self-signed, and by design. A peer is its key, and the key is compared
#     with the one that was named (docs/TRUST.md); no authority has a part in it.
#   - testssl.sh reports `engine_problem`, and at times `optimal_proto`, which are about the OpenSSL that it runs itself:
#     that one brings no certificate, and on a busy machine hears of the refusal before it calls itself connected.
#   - testssl.sh's certificate section (-S) is not asked for: it wants a handshake that ends well without a
#     certificate of the client's, and there is none. sslyze brings one, and reads the server's.
#   - sslyze's --early_data is not asked for: it waits for a ticket, none ever comes, and it takes that for a fault of its
#     own. Without tickets there is no early data (`nothing_follows_a_finished_handshake` in src/tls/tests.rs).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet -p cepa-cli || exit 1
cepa=$(cd "$target/debug" && pwd)/cepa
work=$(mktemp -d) || exit 2
failures=0
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT

missing() { # WHAT HOW
    echo "SKIPPED: $1 is not here; $2"
    [ -z "${CEPA_REQUIRE_INTEROP:-}" ] || failures=$((failures + 1))
}

verdict() { # WHAT STATUS
    [ "$2" = 0 ] && echo "PASS $1" || { echo "FAIL $1"; failures=$((failures + 1)); }
}

export CEPA_CONFIG_DIR=$work/config
"$cepa" serve tcp:127.0.0.1:0 --allow any --service up=echo: 2>"$work/log" &
server=$!
for ((tries = 0; tries < 200; tries++)); do
    at=$(sed -n 's/^listening on tcp:\(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$work/log")
    [ -n "$at" ] && break
    sleep 0.1
done
[ -n "$at" ] || { echo "FAIL cepa serve did not start: $(cat "$work/log")"; exit 1; }

sslyze=$(command -v sslyze || true)
[ -x target/ci/sslyze/bin/sslyze ] && sslyze=target/ci/sslyze/bin/sslyze
if [ -n "$sslyze" ]; then
    # Any certificate: without one, what comes behind the handshake is not tried.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=scanner -days 2 \
        -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    timeout 120 "$sslyze" --mozilla_config disable --cert "$work/cert.pem" --key "$work/key.pem" \
        --json_out "$work/sslyze.json" --sslv2 --sslv3 --tlsv1 --tlsv1_1 --tlsv1_2 --tlsv1_3 --compression --ems \
        --fallback --heartbleed --openssl_ccs --robot --reneg --resum --elliptic_curves --certinfo \
        "$at" >"$work/sslyze.txt" 2>&1
    python3 - "$work/sslyze.json" <<'PY'
import json, sys

scan = json.load(open(sys.argv[1]))["server_scan_results"][0]
bad = []
if scan["scan_status"] != "COMPLETED":
    sys.exit(f"sslyze: {scan['scan_status']}: {scan.get('connectivity_error_trace')}")
results = scan["scan_result"]
for name, result in results.items():
    if result and result["status"] not in ("COMPLETED", "NOT_SCHEDULED"):
        bad.append(f"{name} did not come to its end: {result['error_reason']} {result.get('error_trace')}")
got = {name: r["result"] for name, r in results.items() if r and r["status"] == "COMPLETED"}
expected = {
    "tls_compression": {"supports_compression": False},
    "openssl_ccs_injection": {"is_vulnerable_to_ccs_injection": False},
    "heartbleed": {"is_vulnerable_to_heartbleed": False},
    "robot": {"robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED"},
    "session_renegotiation": {"is_vulnerable_to_client_renegotiation_dos": False},
    "session_resumption": {
        "session_id_resumption_result": "SERVER_IS_TLS_1_3_ONLY",
        "tls_ticket_resumption_result": "SERVER_IS_TLS_1_3_ONLY",
    },
    "tls_fallback_scsv": {"supports_fallback_scsv": True},
}
for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3"):
    expected[f"{version}_cipher_suites"] = {"is_tls_version_supported": version == "tls_1_3"}
for name, fields in expected.items():
    for field, value in fields.items():
        found = got.get(name, {}).get(field, "nothing")
        if found != value:
            bad.append(f"{name}: {field} is {found}, not {value}")
suites = {s["cipher_suite"]["name"] for s in got.get("tls_1_3_cipher_suites", {}).get("accepted_cipher_suites", [])}
if suites != {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"}:
    bad.append(f"suites: {sorted(suites)}")
if any(results[name] is None for name in expected):
    bad.append("a test is missing")
for line in bad:
    print(f"sslyze: {line}")
print(f"sslyze: {len(got)} tests, {len(bad)} findings; TLS 1.3 only with {', '.join(sorted(suites))}")
sys.exit(bool(bad))
PY
    verdict sslyze $?
else
    missing sslyze "pip install sslyze==6.3.1, in a venv at target/ci/sslyze"
fi

testssl=$(command -v testssl || command -v testssl.sh || true)
if [ -n "$testssl" ]; then
    timeout 240 "$testssl" --quiet --color 0 --warnings off --ip one --jsonfile "$work/testssl.json" \
        -p -s -f -P -U "$at" >"$work/testssl.txt" 2>&1 </dev/null
    python3 - "$work/testssl.json" <<'PY'
import json, sys

found = json.load(open(sys.argv[1]))
bad = [f for f in found if f["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")]
# A test that could not be made is no good news.
about_its_openssl = ("engine_problem", "optimal_proto")
bad += [f for f in found if f["severity"] == "WARN" and f["id"] not in about_its_openssl]
by_id = {f["id"]: f["finding"] for f in found}
for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"):
    offered = by_id.get(version, "not tested")
    if offered.startswith("offered") != (version == "TLS1_3") or offered == "not tested":
        bad.append({"id": version, "severity": "-", "finding": offered})
for last in ("cipherlist_NULL", "PFS", "heartbleed", "CCS", "LUCKY13", "RC4"):
    if last not in by_id:
        bad.append({"id": last, "severity": "-", "finding": "not tested"})
for f in bad:
    print(f"testssl.sh: {f['severity']} {f['id']}: {f['finding']}")
print(f"testssl.sh: {len(found)} tests, {len(bad)} findings; TLS 1.3: {by_id.get('TLS1_3')}")
sys.exit(bool(bad))
PY
    verdict testssl.sh $?
else
    missing testssl.sh "Debian has it as testssl.sh"
fi

kill -0 "$server" 2>/dev/null || { echo "FAIL cepa serve has died"; failures=$((failures + 1)); }
grep -a panicked "$work/log" && failures=$((failures + 1))
exit $((failures > 0))
