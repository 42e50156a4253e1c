//! `cepa services`: what this machine's identity may open at a peer, as the peer tells.

use std::fmt::Write as _;
use std::time::Duration;

use cepa::identity::KnownPeer;
use cepa::protocols::directory::{Directory, DirectoryError};
use cepa::session::Session;
use serde_json::json;

use crate::args;
use crate::connection::Connected;
use crate::exit::{self, Code, Failure, say};
use crate::signal::Signals;
use crate::{folder, id, offered};

/// How long the peer may take: a serial line at its slowest needs half a minute for the longest list.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: args::Services) -> Result<(), Failure> {
    let identity = id::load(&args.looking.identity)?;
    let mut signals = Signals::watch();
    let connection = tokio::select! {
        made = Connected::to_look(&args.address, &args.looking, &identity) => made?,
        signal = signals.ended_by() => return Err(Failure::by_signal(signal)),
    };
    let asked = tokio::select! {
        asked = offered::asked(&connection.session, PATIENCE) => asked,
        signal = signals.ended_by() => return Err(connection.ended_by(signal).await),
    };
    let session = &connection.session;
    if args.looking.trust.trust.is_some() {
        say(format_args!("peer {} (not verified)", session.peer().id()));
    }
    let list = match asked {
        Ok(list) => list,
        Err(error) => {
            let failure = failed(error, session);
            connection.close().await;
            return Err(failure);
        }
    };
    if args.json {
        exit::print_json(&format!("{}\n", in_json(&list, session)))?;
    } else {
        exit::print(&table(&list))?;
        if !list.is_complete {
            say("there may be more that the peer does not list");
        } else if list.services.is_empty() {
            let peer = offered::name(session);
            say(format_args!("{peer} offers you no service"));
        }
    }
    connection.close().await;
    Ok(())
}

fn failed(error: DirectoryError, session: &Session) -> Failure {
    if error.is_unknown_to_peer() {
        let why = format!(
            "{} does not list its services (an older cepa?); ask its owner for a name",
            offered::name(session)
        );
        return Failure::new(Code::Refused, why);
    }
    match error {
        DirectoryError::Open(error) => error.into(),
        DirectoryError::Io(_) | DirectoryError::TimedOut => {
            Failure::new(Code::Lost, error.to_string())
        }
        error => Failure::new(Code::Other, error.to_string()),
    }
}

fn table(list: &Directory) -> String {
    let names = list.services.iter().map(|it| it.name.as_str());
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for it in &list.services {
        let line = format!("{:width$}  {}", it.name.as_str(), it.kind);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn in_json(list: &Directory, session: &Session) -> serde_json::Value {
    let peer = session.peer().id();
    let known = folder::known_as(peer);
    let services = list.services.iter().map(|it| {
        json!({
            "name": it.name.as_str(),
            "kind": (!it.kind.is_empty()).then_some(&it.kind),
        })
    });
    json!({
        "peer": peer.to_string(),
        "name": known.first().map(KnownPeer::name),
        "services": services.collect::<Vec<_>>(),
        "complete": list.is_complete,
    })
}
