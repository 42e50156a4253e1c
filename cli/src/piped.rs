//! `cepa pipe --listen`: whoever connects to the first address is joined to the other one, which is opened anew for each, like a
//! service without peers. It makes a receiver of any command: with `unix:PATH,framed` one that is killed, with all it has
//! started, where its input is cut, so that it never takes half of it for all.
//!
//! A failure is told, and is its connection's own. The command ends with a signal.

use std::sync::Arc;
use std::time::Duration;

use cepa::identity::Identity;
use cepa::transports::{self, Stream, Target, Terminal, dial_for_peer};
use tokio::task::JoinSet;

use crate::args;
use crate::exit::{Code, Failure, say};
use crate::log::{self, say_once_a_minute};
use crate::pipe::{End, carry, checked, dressed};
use crate::signal::Signals;
use crate::stack;

/// Pause after a failed accept; what it lacks may come back.
const PAUSE: Duration = Duration::from_millis(500);

/// Descriptors of one connection: its own, and four of a command.
const EACH: usize = 5;

pub(crate) async fn run(args: args::Pipe) -> Result<(), Failure> {
    let usage = |why: String| Err(Failure::new(Code::Usage, why));
    let address = &args.one;
    if !address.is_socket() && !matches!(address.target(), Target::Rfc2217 { .. }) {
        let scheme = address.scheme();
        return usage(format!(
            "cannot listen on {scheme}: here: use tcp: or unix: as the first address"
        ));
    }
    if !address.layers().is_empty() {
        return usage(format!(
            "{address}: `cepa pipe` listens without layers; use `cepa serve` for layers"
        ));
    }
    if matches!(args.other.target(), Target::Stdio | Target::Fd { .. }) {
        return usage(format!(
            "{}: this can be opened only once; give an address that can be opened for each client",
            args.other
        ));
    }
    let identity = checked(&args)?;
    let mut listener = transports::listen(address).await?;
    let mut signals = Signals::watch();
    say(format_args!("listening on {}", listener.endpoint()));
    let most = (stack::connections() / EACH).max(1);
    let shared = Arc::new((args, identity));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = signals.asked_to_end() => break,
            // Who comes when there are so many waits in the system's queue.
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok(Some(stream)) => {
                    connections.spawn(serve(Arc::clone(&shared), stream));
                }
                Ok(None) => break,
                Err(e) => {
                    say(&e);
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
    Ok(())
}

/// One connection, to its end.
async fn serve(shared: Arc<(args::Pipe, Option<Identity>)>, stream: Stream) {
    let label = stream.label().to_owned();
    let source = log::source(stream.remote().into(), &label);
    let done = async {
        let (args, identity) = &*shared;
        let client = stream.control();
        let near = End::accepted(stream);
        // A command is killed with all that it has started.
        let other = dial_for_peer(&args.other, &Terminal::default()).await?;
        // Where a layer is between, its bytes are no characters of the client's.
        if let (Some(client), Some(device)) = (client, other.control())
            && args.other.layers().is_empty()
        {
            client.pass_breaks_to(device);
        }
        let far = dressed(other, &args.other, &args.trust, identity.as_ref()).await?;
        carry(args, near, far).await
    };
    if let Err(failure) = done.await {
        let why = if failure.is_of_command() {
            format!(
                "{}: it failed (status {})",
                shared.0.other,
                failure.status()
            )
        } else {
            failure.to_string()
        };
        say_once_a_minute(source, &why, format_args!("{label}: {why}"));
    }
}
