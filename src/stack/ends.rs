//! Between whom a session is: who each of its TLS layers has proven at either end.
//!
//! A connection that takes it up has to prove as much, in the same order. Layers one inside the other that prove the same two ends
//! count as one, so that a session may go on where there are more or fewer of them.

use crate::identity::{Identity, PeerId};
use crate::onion::LayerInfo;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// The outermost first; of each layer this end and the other.
    outer: Vec<Pair>,
    innermost: Pair,
}

type Pair = (PeerId, PeerId);

impl Ends {
    /// Those of a session's first connection; none without layers.
    pub(crate) fn of(layers: &[LayerInfo]) -> Option<Self> {
        let pair = |layer: &LayerInfo| (layer.peer().local_id(), layer.peer().id());
        let mut outer: Vec<Pair> = layers.iter().map(pair).collect();
        outer.dedup();
        let innermost = outer.pop()?;
        Some(Self { outer, innermost })
    }

    /// The peer of the session.
    pub(crate) fn peer(&self) -> PeerId {
        self.innermost.1
    }

    /// Whether another connection, of these layers, is between the same ends: with the keys of the first one, or with such
    /// as have replaced them. `first` and `more` are the identities that this end can have there.
    pub(crate) fn are(
        &self,
        layers: &[LayerInfo],
        (first, more): (&Identity, &[Identity]),
    ) -> bool {
        let ours = |here: PeerId, before: &PeerId| {
            let mut all = std::iter::once(first).chain(more);
            here == *before || all.any(|own| own.peer_id() == here && own.is(before))
        };
        let same = |layer: &LayerInfo, (local, remote): &Pair| {
            let peer = layer.peer();
            !peer.is_anonymous() && peer.is(remote) && ours(peer.local_id(), local)
        };
        let mut due = self.outer.iter().chain([&self.innermost]);
        let mut last: Option<&Pair> = None;
        for layer in layers {
            // One that proves what the one around it did adds nothing.
            if last.is_some_and(|pair| same(layer, pair)) {
                continue;
            }
            match due.next() {
                Some(pair) if same(layer, pair) => last = Some(pair),
                _ => return false,
            }
        }
        due.next().is_none()
    }
}
