//! Which layers can carry a session.

use cepa_transports::endpoint::LinkSettings;
use cepa_transports::{Layer, Target};

use super::error::ConnectError;
use crate::onion::MAX_LAYERS;

/// What an address means that names no layers ...
pub const DEFAULT_LAYERS: &[Layer] = &[Layer::Mux, Layer::Tls];

/// ... where it is a serial line, or a pty, which stands for one: TLS dies of the first damaged bit.
pub const SERIAL_LAYERS: &[Layer] = &[Layer::Mux, Layer::Tls, Layer::LINK];

/// What an address means that names no layers.
pub(super) fn default_layers(target: &Target) -> &'static [Layer] {
    if target.is_line() {
        SERIAL_LAYERS
    } else {
        DEFAULT_LAYERS
    }
}

/// The layers of a stack below its mux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Below<'a> {
    /// The TLS layers, topmost first.
    pub(super) tls: &'a [Layer],
    /// A link is the lowest, told this of the line.
    pub(super) link: Option<LinkSettings>,
}

/// What is below the mux; an error for layers that can't carry a session.
pub(super) fn below_mux(layers: &[Layer]) -> Result<Below<'_>, ConnectError> {
    let refused = |reason| {
        Err(ConnectError::Layers {
            layers: written(layers),
            reason,
        })
    };
    let [Layer::Mux, below @ ..] = layers else {
        return refused("a session needs the mux as its topmost layer");
    };
    let (tls, link) = match below {
        [tls @ .., Layer::Link(link_settings)] => (tls, Some(*link_settings)),
        tls => (tls, None),
    };
    if tls.is_empty() {
        return refused("the mux needs a TLS layer below it, or strangers could speak to it");
    }
    if tls.iter().any(|layer| layer.is_link()) {
        return refused("a link is the lowest layer, next to the line");
    }
    if tls.iter().any(|layer| !layer.is_tls()) {
        return refused("only TLS layers, and a link as the lowest, can stand below the mux");
    }
    if tls.len() > MAX_LAYERS {
        return refused("there are more than 8 TLS layers");
    }
    Ok(Below { tls, link })
}

/// Layers as an address writes them.
fn written(layers: &[Layer]) -> String {
    layers
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("+")
}
