//! The built-in service `demo:`, which tries a TLS layer inside a substream: the far end of `cepa demo`, which knows this
//! service, and not the other way round.
//!
//! It sends back one segment as it came, answers the offer of a TLS layer, sends back a second
//! segment inside it, takes the layer off when the other side does, and sends back a third.

use cepa::mux::Substream;
use cepa::onion::{Answer, Onion};
use cepa::tls::TlsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes before, inside and behind the layer that is put on and taken off.
pub(crate) const SEGMENT: usize = 256 * 1024;

pub(crate) async fn serve(mut far: Onion<Substream>, config: &TlsConfig) -> Result<(), String> {
    echo(&mut far).await?;
    let peer = far
        .answer(|_| Answer::Accept(config.clone()))
        .await
        .map_err(|e| e.to_string())?;
    debug_assert!(peer.is_some(), "what is accepted gives a peer");
    echo(&mut far).await?;
    far.pop().await.map_err(|e| e.to_string())?;
    echo(&mut far).await?;
    far.shutdown().await.map_err(|e| e.to_string())
}

/// Sends back one segment while it comes.
async fn echo(far: &mut Onion<Substream>) -> Result<(), String> {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = SEGMENT;
    while left > 0 {
        let most = left.min(buffer.len());
        let n = far
            .read(buffer.get_mut(..most).unwrap_or_default())
            .await
            .map_err(|e| e.to_string())?;
        if n == 0 {
            return Err("the substream ended within a segment".to_owned());
        }
        far.write_all(buffer.get(..n).unwrap_or_default())
            .await
            .map_err(|e| e.to_string())?;
        far.flush().await.map_err(|e| e.to_string())?;
        left -= n;
    }
    Ok(())
}
