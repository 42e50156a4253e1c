//! `cepa mesh status`: asks a running node, through its control socket, and shows what it says.

use std::fmt::Write as _;
use std::time::Duration;

use cepa::transports::{self, text::clean};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::args::{Mesh, MeshStatus};
use crate::columns::beside;
use crate::exit::{self, Code, Failure};

/// Time for the node to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer in bytes: about what 10,000 sessions take.
const MOST: u64 = 4 << 20;
/// Longest cell in bytes: a path through several relays.
const MOST_WORD: usize = 1024;

/// Characters of a peer id where it stands in a line with other things.
const SHORT: usize = 12;

pub(crate) async fn run(args: Mesh) -> Result<(), Failure> {
    let Mesh::Status(args) = args;
    status(&args).await
}

async fn status(args: &MeshStatus) -> Result<(), Failure> {
    let at = args.control.display();
    let failed = |code, why: String| {
        Failure::new(
            code,
            format!("{at}: {why}; is a node running with `control = \"{at}\"`?"),
        )
    };
    let endpoint = format!("unix:{at}").parse();
    let endpoint = endpoint.map_err(|e| Failure::new(Code::Usage, format!("{e}")))?;
    let stream = transports::dial(&endpoint).await;
    let stream = stream.map_err(|e| {
        let failure = Failure::from(e);
        failed(failure.code, failure.to_string())
    })?;
    let (answer, mut asking) = tokio::io::split(stream);
    // Nothing more is asked for than what there is.
    let _ = asking.shutdown().await;
    let mut text = String::new();
    let mut answer = answer.take(MOST);
    match tokio::time::timeout(PATIENCE, answer.read_to_string(&mut text)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => return Err(failed(Code::Lost, e.to_string())),
        Err(_) => return Err(failed(Code::Lost, "no answer in time".into())),
    }
    let status: Value = serde_json::from_str(&text)
        .map_err(|_| failed(Code::Connect, "what answers there is not a node".into()))?;
    if args.json {
        return exit::print_json(&text);
    }
    exit::print(&table(&status))
}

/// For a person: what the node is, then a line a session.
fn table(status: &Value) -> String {
    let word = |value: &Value| clean(value.as_str().unwrap_or_default(), MOST_WORD).into_owned();
    let words = |value: &Value| {
        let all = value.as_array().into_iter().flatten();
        let all: Vec<String> = all.map(word).collect();
        if all.is_empty() {
            "-".to_owned()
        } else {
            all.join(", ")
        }
    };
    let mut out = String::new();
    let _ = writeln!(out, "peer        {}", word(&status["peer"]));
    for list in ["listening", "services", "registered"] {
        let _ = writeln!(
            out,
            "{}",
            beside(&format!("{list:10}  "), &words(&status[list]))
        );
    }
    for role in ["relay", "carrier"] {
        if let Some(counts) = status[role].as_object() {
            let all: Vec<String> = counts
                .iter()
                .map(|(name, n)| clean(&format!("{n} {name}"), MOST_WORD).into_owned())
                .collect();
            let _ = writeln!(out, "{role:10}  {}", all.join(", "));
        }
    }
    let sessions = status["sessions"].as_array().map_or(&[][..], Vec::as_slice);
    let _ = writeln!(out, "sessions    {}", sessions.len());
    if !sessions.is_empty() {
        let _ = writeln!(out, "\n{:13}  BY    STREAMS  PATH", "PEER");
    }
    for session in sessions {
        let by = if session["dialled"] == Value::Bool(true) {
            "us"
        } else {
            "them"
        };
        // Whole with --json: a line of a terminal has no room for it.
        let mut peer = word(&session["peer"]);
        if peer.len() > SHORT && peer.is_ascii() {
            peer.truncate(SHORT);
            peer.push('…');
        }
        let _ = writeln!(
            out,
            "{peer:13}  {by:4}  {:7}  {}",
            clean(&session["streams"].to_string(), MOST_WORD),
            word(&session["path"]),
        );
    }
    out
}
