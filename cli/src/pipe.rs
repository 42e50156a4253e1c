//! `cepa pipe`: two streams joined, each with the TLS layers that its address names.

use std::time::Duration;

use cepa::Side;
use cepa::identity::Identity;
use cepa::onion::Onion;
use cepa::stack::{self, StackConfig};
use cepa::tls::TlsError;
use cepa::transports::{self, Endpoint, Layer, Stream, Target};

use crate::args::{self, Trust};
use crate::child::Watched;
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::join::{Ended, Join};
use crate::link::refused;
use crate::stack::few_layers;
use crate::trust;

pub(crate) async fn run(args: args::Pipe) -> Result<(), Failure> {
    for address in [&args.one, &args.other] {
        few_layers(address)?;
        if address.layers().contains(&Layer::Mux) {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "{address}: a mux carries many streams, a pipe joins one; use `cepa connect`"
                ),
            ));
        }
        let above = address
            .layers()
            .split_last()
            .map_or(&[][..], |(_, above)| above);
        if above.iter().any(|layer| layer.is_link()) {
            return Err(Failure::new(
                Code::Usage,
                format!("{address}: a link is the lowest layer; write link+ next to the scheme"),
            ));
        }
    }
    let secured = [&args.one, &args.other]
        .iter()
        .any(|a| a.layers().iter().any(|l| l.is_tls()));
    let identity = if secured {
        Some(id::load(&args.identity)?)
    } else {
        None
    };
    let mut near = open(&args.one, &args.trust, identity.as_ref()).await?;
    let mut far = open(&args.other, &args.trust, identity.as_ref()).await?;
    let lost = |address: &Endpoint, e: &std::io::Error| {
        Failure::new(Code::Lost, format!("{address}: {e}"))
    };
    match Join::new(&mut near.onion, &mut far.onion).run().await {
        // Who stops taking what the other sends has lost it; only a reader of our standard output
        // may do that quietly.
        Ended::Both {
            near_left: Some(e), ..
        } if !left_quietly(&args.one, &e) => Err(lost(&args.one, &e)),
        Ended::Both {
            far_left: Some(e), ..
        } if !left_quietly(&args.other, &e) => Err(lost(&args.other, &e)),
        Ended::Both { .. } => Ok(()),
        Ended::Near(e) | Ended::NearLeft(e) => Err(lost(&args.one, &e)),
        Ended::Far(e) => Err(lost(&args.other, &e)),
    }
}

fn left_quietly(address: &Endpoint, e: &std::io::Error) -> bool {
    matches!(address.target(), Target::Stdio) && e.kind() == std::io::ErrorKind::BrokenPipe
}

/// For each layer's handshake, as in a session's stack: whoever answers must answer soon.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An open end of the pipe; a subprocess stays with it.
struct End {
    onion: Onion<Stream>,
    _child: Option<Watched>,
}

/// The stream with a link on it.
fn linked(stream: Stream, address: &Endpoint) -> Stream {
    let (label, remote) = (stream.label().to_owned(), stream.remote().clone());
    let config = stack::link_config(address, &cepa::link::Config::default());
    // Both ends of a pipe dial, so both speak.
    let (link, driver) = cepa::link::link(stream, Side::Client, &config);
    tokio::spawn(driver);
    Stream::from_io(link, label).with_remote(remote)
}

async fn open(
    address: &Endpoint,
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<End, Failure> {
    let mut stream = transports::dial(address).await?;
    stream.remarks().iter().for_each(say);
    let child = stream
        .take_child()
        .map(|c| Watched::start(c, address.to_string()));
    if address.layers().iter().any(|layer| layer.is_link()) {
        stream = linked(stream, address);
    }
    let mut onion = Onion::new(stream);
    if let Some(identity) = identity {
        let policy = trust::of_dialler(trust, address)?;
        let mut config = StackConfig::new(identity.clone(), policy).tuned_to(address);
        config.ask_for = trust::asked_for(trust)?;
        // Written top of the stack first, so the last one is next to the wire and goes on first.
        for layer in address.layers().iter().rev().filter(|l| l.is_tls()) {
            let tls = config.tls(*layer)?;
            match tokio::time::timeout(HANDSHAKE, onion.push(Side::Client, &tls)).await {
                Ok(Ok(_peer)) => {}
                Ok(Err(e)) => {
                    return Err(match e.root() {
                        TlsError::Refused(refusal) => refused(refusal, address),
                        _ => e.into(),
                    });
                }
                Err(_) => return Err(TlsError::TimedOut.into()),
            }
        }
    }
    Ok(End {
        onion,
        _child: child,
    })
}
