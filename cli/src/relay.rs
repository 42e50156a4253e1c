//! `cepa relay`: a node whose only service is to carry circuits between others.

use std::time::Duration;

use cepa::identity::PeerId;
use cepa::node::sealed::CarrierConfig;
use cepa::node::{Node, PeerAddr};
use cepa::relay::RelayConfig;

use crate::args;
use crate::exit::{Failure, say};
use crate::signal::Signals;
use crate::stack::carries_session;
use crate::{id, node, trust};

/// How long sessions may take to end in order once the relay was asked to.
const GOODBYE: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: args::Relay) -> Result<(), Failure> {
    for endpoint in &args.listen {
        carries_session(endpoint)?;
    }
    let identity = id::load(&args.identity)?;
    // Whoever is let in is served; the relays that this one registers at itself are not let in, but dialled.
    let above: Vec<PeerId> = args.register.iter().map(PeerAddr::peer).collect();
    let named: Vec<PeerId> = trust::named_ids(&args.allow);
    let mut relay =
        RelayConfig::for_peers(move |peer| !above.contains(peer) || named.contains(peer));
    relay.registrations = args.registrations;
    relay.circuits = args.circuits;
    relay.circuits_a_peer = args.circuits_a_peer;
    relay.rate = args.rate;
    let carried = relay.allow.clone();
    let mut config = node::config(&identity, trust::of_server(&args.allow)?);
    node::room_for_relay(&mut config, &relay);
    let node = Node::with_relay(config, relay);
    if args.carry {
        node.carry(Some(CarrierConfig::for_peers(move |peer| carried(peer))));
    }
    let mut signals = Signals::watch();
    for endpoint in &args.listen {
        let at = node.listen(endpoint).await?;
        say(format_args!(
            "relaying on {at}; nodes register at cepa://{}@{at}",
            identity.peer_id()
        ));
    }
    if args.allow.is_empty() {
        say(
            "nobody is allowed yet: give --allow PEERID, or --allow any; whoever is refused is shown here",
        );
    }
    node::tell(&node);
    node::register(&node, &args.register).await?;
    signals.asked_to_end().await;
    node.shutdown(GOODBYE).await;
    Ok(())
}
