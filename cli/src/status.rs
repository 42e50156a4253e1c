//! `cepa status`: asks a long-running command what it does, at its control socket or over a session, and shows it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use cepa::session::Session;
use cepa::transports::text::clean;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use crate::args::Status;
use crate::columns::{beside, count, size};
use crate::connection::Connected;
use crate::control::Asked;
use crate::exit::{self, Code, Failure};
use crate::keep::in_words;
use crate::signal::Signals;
use crate::{id, status_served};

/// How often it is shown anew.
const PACE: Duration = Duration::from_secs(1);

/// Longest cell in bytes: a path through several relays.
const MOST_WORD: usize = 1024;

/// Characters of a peer id where it stands in a line with other things.
const SHORT: usize = 12;

/// Characters of a service's name in a table.
const SERVICE: usize = 18;

pub(crate) async fn run(args: Status) -> Result<(), Failure> {
    let mut signals = Signals::watch();
    if let Some(path) = &args.control {
        return tokio::select! {
            shown = of_command(path, &args) => shown,
            signal = signals.ended_by() => ended_by(signal, &args),
        };
    }
    let Some(address) = &args.address else {
        let why = "say whose: --control PATH of a command of this machine that was started with it (`control` in a node's file), or a peer, as in `cepa status @NAME`";
        return Err(Failure::new(Code::Usage, why));
    };
    let identity = id::load(&args.looking.identity)?;
    let connection = tokio::select! {
        made = Connected::to_look(address, &args.looking, &identity) => made?,
        signal = signals.ended_by() => return ended_by(signal, &args),
    };
    let shown = tokio::select! {
        shown = of_peer(&connection.session, &args) => shown,
        signal = signals.ended_by() => ended_by(signal, &args),
    };
    connection.close().await;
    shown
}

/// Whoever watches ends it so; whoever does not has seen nothing yet.
fn ended_by(signal: u8, args: &Status) -> Result<(), Failure> {
    if args.watch {
        Ok(())
    } else {
        Err(Failure::by_signal(signal))
    }
}

/// Of a command of this machine.
async fn of_command(path: &Path, args: &Status) -> Result<(), Failure> {
    let wanted = if args.watch {
        json!({ "every_ms": u64::try_from(PACE.as_millis()).unwrap_or(u64::MAX) })
    } else {
        json!({})
    };
    let mut asked = Asked::at(path, &json!({ "status": wanted })).await?;
    if !args.watch {
        return show(&asked.only().await?, args).map(drop);
    }
    while let Some(status) = asked.next(PACE).await? {
        if !show(&status, args)? {
            return Ok(());
        }
    }
    let why = format!("{}: the command has ended", path.display());
    Err(Failure::new(Code::Lost, why))
}

/// What a peer sees.
async fn of_peer(session: &Session, args: &Status) -> Result<(), Failure> {
    loop {
        let status = status_served::ask(session).await?;
        if !show(&status, args)? || !args.watch {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Whether somebody still reads it.
fn show(status: &Value, args: &Status) -> Result<bool, Failure> {
    match (args.json, args.watch) {
        (true, _) => exit::print_on(&format!("{status}\n")),
        (false, true) if io::stdout().is_terminal() => exit::print_screen(&screen(&table(status))),
        (false, true) => exit::print_on(&format!("{}\n", table(status))),
        (false, false) => exit::print_on(&table(status)),
    }
}

/// What fits on the terminal.
fn screen(table: &str) -> String {
    let rows = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    let lines: Vec<&str> = table.lines().collect();
    if rows < 3 || lines.len() < rows {
        return table.to_owned();
    }
    let shown = lines.get(..rows - 2).unwrap_or(&lines);
    let more = count((lines.len() - shown.len()) as u64, "more line");
    format!("{}\n… and {more}\n", shown.join("\n"))
}

fn word(value: &Value) -> String {
    clean(value.as_str().unwrap_or_default(), MOST_WORD).into_owned()
}

fn words(value: &Value) -> String {
    let all: Vec<String> = value.as_array().into_iter().flatten().map(word).collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(", ")
    }
}

/// A number of bytes; nothing where it is not known.
fn bytes(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), size)
}

fn time(value: &Value) -> String {
    let time = Duration::try_from_secs_f64(value.as_f64().unwrap_or_default());
    let time = time.unwrap_or_default();
    // A tenth of a second is of interest only while there are few.
    in_words(if time.as_secs() < 10 {
        time
    } else {
        Duration::from_secs(time.as_secs())
    })
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// For a person: what the command is, then its sessions, each with its substreams.
fn table(status: &Value) -> String {
    let mut out = String::new();
    let line = |out: &mut String, head: &str, text: &str| {
        let _ = writeln!(out, "{}", beside(&format!("{head:10}  "), text));
    };
    let process = match status["pid"].as_u64() {
        Some(pid) => format!(", process {pid}"),
        None => String::new(),
    };
    let command = format!(
        "cepa {}{process}, up {}",
        word(&status["command"]),
        time(&status["age_s"]),
    );
    line(&mut out, "command", &command);
    line(&mut out, "peer", &word(&status["peer"]));
    for list in ["listening", "services", "registered"] {
        if status[list].as_array().is_some_and(|all| !all.is_empty()) {
            line(&mut out, list, &words(&status[list]));
        }
    }
    for role in ["relay", "carrier"] {
        if let Some(counts) = status[role].as_object() {
            let all = counts.iter();
            let all: Vec<String> = all
                .map(|(name, n)| {
                    clean(&format!("{n} {}", name.replace('_', " ")), MOST_WORD).into_owned()
                })
                .collect();
            line(&mut out, role, &all.join(", "));
        }
    }
    if status["fleet"].is_object() {
        fleet(&mut out, &status["fleet"]);
    }
    let sessions = status["sessions"].as_array().map_or(&[][..], Vec::as_slice);
    let all = status["session_count"].as_u64().unwrap_or_default();
    let streams = sessions.iter().filter_map(|it| it["stream_count"].as_u64());
    let streams = count(streams.sum(), "stream");
    let whose = match status["shows"].as_str() {
        Some("own") => {
            "; your own alone: whom its owner names with --allow-status (`allow_status` in a node's file) sees all"
        }
        _ => "",
    };
    line(
        &mut out,
        "sessions",
        &format!("{all}, with {streams}{whose}"),
    );
    for it in sessions {
        session(&mut out, it);
    }
    let left = all.saturating_sub(sessions.len() as u64);
    if left > 0 {
        let _ = writeln!(out, "\n… and {}", count(left, "more session"));
    }
    out
}

/// A relay's fleet: its store, what is there of the others, what was asked of them.
fn fleet(out: &mut String, it: &Value) {
    let number = |name: &str| it[name].as_u64().unwrap_or_default();
    let mut line = |head: &str, text: &str| {
        let _ = writeln!(out, "{}", beside(&format!("{head:10}  "), text));
    };
    let store = match it["endpoint"].as_str() {
        Some(at) => format!("etcd at {}", clean(at, MOST_WORD)),
        None => format!("no etcd ({})", word(&it["error"])),
    };
    let lease = match it["lease_kept_s"].as_f64() {
        Some(_) => format!("lease kept {} ago", time(&it["lease_kept_s"])),
        None => "no lease".to_owned(),
    };
    let lost = count(number("leases_lost"), "lease");
    let waiting = count(number("waiting"), "change");
    line(
        "fleet",
        &format!(
            "{}; {store}, {lease}, {lost} lost, {waiting} waiting",
            word(&it["store"])
        ),
    );
    let present = it["present"].as_array().map_or(&[][..], Vec::as_slice);
    line(
        "members",
        &format!(
            "{} of {} others, with {}; {} here",
            present.len(),
            number("other_relays"),
            count(number("registrations_elsewhere"), "registration"),
            number("registrations"),
        ),
    );
    for one in present {
        let id = shortened(&word(&one["peer"]), SHORT + 1);
        let leaving = if one["leaving"] == true {
            ", leaving"
        } else {
            ""
        };
        let text = format!(
            "{id} {} of {} registrations, {} of {} circuits{leaving}, at {}",
            one["registrations"],
            one["most_registrations"],
            one["circuits"],
            one["most_circuits"],
            words(&one["addresses"]),
        );
        line("", &text);
    }
    line(
        "lookups",
        &format!(
            "{} ({}/s), {} missed, {} limited; {} to other relays, {} from them",
            number("lookups"),
            it["lookups_s"].as_f64().unwrap_or_default(),
            number("lookups_missed"),
            number("lookups_limited"),
            count(number("circuits_out"), "circuit"),
            number("circuits_in"),
        ),
    );
    let ignored = [
        ("ignored_foreign", "of relays that are not in --fleet-peer"),
        ("ignored_garbage", "that make no sense"),
        ("ignored_surplus", "for which there is no room"),
    ];
    let ignored = ignored.into_iter().filter_map(|(name, what)| {
        let entries = it[name].as_u64().filter(|n| *n > 0)?;
        Some(format!("{entries} {what}"))
    });
    let ignored: Vec<_> = ignored.collect();
    if !ignored.is_empty() {
        line("ignored", &format!("entries: {}", ignored.join(", ")));
    }
}

fn session(out: &mut String, it: &Value) {
    // Whole with --json: a line of a terminal has no room for it.
    let id = shortened(&word(&it["peer"]), SHORT + 1);
    let who = match it["name"].as_str() {
        Some(name) => format!("{} ({id})", clean(name, MOST_WORD)),
        None => id,
    };
    let (way, path) = (word(&it["direction"]), word(&it["path"]));
    let _ = writeln!(out, "\n{}", beside("", &format!("{who} {way} {path}")));
    let state = match it["state"].as_str() {
        Some("connected") => match it["round_trip_ms"].as_f64() {
            Some(ms) => format!("round trip {ms:.1} ms"),
            None => "connected".to_owned(),
        },
        _ => "no connection at the moment".to_owned(),
    };
    let passed = format!(
        "up {}, {state}; in {} ({}/s), out {} ({}/s), {} queued",
        time(&it["age_s"]),
        bytes(&it["bytes_in"]),
        bytes(&it["rate_in"]),
        bytes(&it["bytes_out"]),
        bytes(&it["rate_out"]),
        bytes(&it["queued"]),
    );
    let _ = writeln!(out, "{}", beside("  ", &passed));
    let layers = it["layers"].as_array().into_iter().flatten().map(layer);
    let layers: Vec<String> = layers.collect();
    let _ = writeln!(out, "{}", beside("  layers  ", &layers.join(", ")));
    let streams = it["streams"].as_array().map_or(&[][..], Vec::as_slice);
    if !streams.is_empty() {
        let _ = writeln!(
            out,
            "  {:>6}  {:SERVICE$} {:>4}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "STREAM", "SERVICE", "PRIO", "QUEUED", "IN", "OUT", "IN/S", "OUT/S"
        );
    }
    for it in streams {
        let id = it["id"].as_u64().unwrap_or_default();
        let _ = writeln!(
            out,
            "  {id:>6}  {:SERVICE$} {:>4}{:>9}{:>9}{:>9}{:>9}{:>9}",
            shortened(&word(&it["service"]), SERVICE),
            it["priority"].as_u64().unwrap_or_default(),
            bytes(&it["queued"]),
            bytes(&it["bytes_in"]),
            bytes(&it["bytes_out"]),
            bytes(&it["rate_in"]),
            bytes(&it["rate_out"]),
        );
    }
    let all = it["stream_count"].as_u64().unwrap_or_default();
    let left = all.saturating_sub(streams.len() as u64);
    if left > 0 {
        let _ = writeln!(out, "  … and {}", count(left, "more stream"));
    }
}

/// A layer, and what has passed it.
fn layer(it: &Value) -> String {
    let name = match it["version"].as_str() {
        Some(version) => clean(version, MOST_WORD).into_owned(),
        None => word(&it["layer"]),
    };
    match (it["bytes_in"].as_f64(), it["bytes_out"].as_f64()) {
        (Some(inward), Some(out)) => format!("{name} {} in {} out", size(inward), size(out)),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::WIDTH;

    fn one() -> Value {
        let stream = json!({
            "id": 4_000_001, "service": "cepa.exec.a-service-with-a-long-name", "priority": 3,
            "queued": 1e12, "bytes_in": 1e15, "bytes_out": 1e9, "rate_in": 0, "rate_out": 12345,
        });
        let session = json!({
            "peer": "x".repeat(52), "name": "ann", "direction": "in", "state": "connected",
            "path": "tcp [2001:db8:1234:5678:9abc:def0:1234:5678]:65535", "age_s": 12.345,
            "round_trip_ms": 0.25, "bytes_in": 1, "bytes_out": 2, "rate_in": null, "rate_out": 7,
            "queued": 0, "stream_count": 3, "streams": [stream],
            "layers": [
                { "layer": "mux", "bytes_in": 1, "bytes_out": 2 },
                { "layer": "resume" },
                { "layer": "tls", "version": "TLS 1.3", "bytes_in": 1e6, "bytes_out": 2e9 },
                { "layer": "tcp", "bytes_in": 1, "bytes_out": 2 },
            ],
        });
        json!({
            "command": "serve", "pid": 7, "age_s": 100.5, "peer": "y".repeat(52),
            "listening": ["tcp:127.0.0.1:7000"], "services": ["up", "d\u{1b}b"], "registered": [],
            "relay": { "circuits": 1, "taken_back": 2 }, "carrier": null,
            "session_count": 2, "sessions": [session],
            "fleet": {
                "store": "etcd://127.0.0.1:2379/cepa", "endpoint": "127.0.0.1:2379", "lease_kept_s": 1.5,
                "leases_lost": 0, "waiting": 1, "other_relays": 2, "registrations": 3,
                "registrations_elsewhere": 1000, "lookups": 12, "lookups_s": 0.5, "lookups_missed": 1,
                "lookups_limited": 0, "circuits_out": 4, "circuits_in": 1,
                "present": [{ "peer": "z".repeat(52), "registrations": 1000, "most_registrations": 4096,
                    "circuits": 1, "most_circuits": 16, "leaving": true, "addresses": ["tcp:h\u{1b}:1"] }],
            },
        })
    }

    #[test]
    fn a_table_has_80_columns_and_no_controls() {
        let table = table(&one());
        for line in table.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(!line.chars().any(char::is_control), "{line}");
        }
        for part in [
            "command     cepa serve, process 7, up 1 min 40 s\n",
            "relay       1 circuits, 2 taken back\n",
            "sessions    2, with 3 streams\n",
            "fleet       etcd://127.0.0.1:2379/cepa; etcd at 127.0.0.1:2379, lease kept",
            "members     1 of 2 others, with 1000 registrations; 3 here\n",
            "lookups     12 (0.5/s), 1 missed, 0 limited; 4 circuits to other relays, 1 from\n",
            "zzzzzzzzzzzz… 1000 of 4096 registrations, 1 of 16 circuits, leaving,",
            "\nann (xxxxxxxxxxxx…) in tcp [2001:",
            "up 12 s, round trip 0.2 ms; in 1 B (-/s), out 2 B (7 B/s), 0 B queued",
            "  layers  mux 1 B in 2 B out, resume, TLS 1.3 977 KiB in 1.9 GiB out,",
            "\n  4000001  cepa.exec.a-servi…    3  931 GiB  909 TiB  954 MiB      0 B 12.1 KiB\n",
            "  … and 2 more streams\n",
            "\n… and 1 more session\n",
        ] {
            assert!(table.contains(part), "{part:?} in\n{table}");
        }
        assert!(!table.contains("registered"));
    }
}
