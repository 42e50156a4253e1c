//! Which layers can carry a session.

use cepa_transports::Layer;

use super::error::ConnectError;
use crate::onion::MAX_LAYERS;

/// What an address means that names no layers.
pub const DEFAULT_LAYERS: &[Layer] = &[Layer::Mux, Layer::Tls];

/// The TLS layers that a stack has below its mux, topmost first; an error for a stack that can't
/// carry a session.
pub(super) fn tls_layers(layers: &[Layer]) -> Result<&[Layer], ConnectError> {
    let layers = if layers.is_empty() {
        DEFAULT_LAYERS
    } else {
        layers
    };
    let refused = |reason| {
        Err(ConnectError::Layers {
            layers: written(layers),
            reason,
        })
    };
    let [Layer::Mux, below @ ..] = layers else {
        return refused("a session needs the mux as its topmost layer");
    };
    if below.is_empty() {
        return refused("the mux needs a TLS layer below it, or strangers could speak to it");
    }
    if below.iter().any(|layer| !layer.is_tls()) {
        return refused("only TLS layers can stand below the mux");
    }
    if below.len() > MAX_LAYERS {
        return refused("there are more than 8 TLS layers");
    }
    Ok(below)
}

/// Layers as an address writes them.
fn written(layers: &[Layer]) -> String {
    layers
        .iter()
        .map(|layer| layer.word())
        .collect::<Vec<_>>()
        .join("+")
}
