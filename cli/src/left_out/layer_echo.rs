//! In place of `layer_echo.rs` in a build without the feature `tools`: there is no demo.

use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::tls::TlsConfig;

#[allow(clippy::unused_async)]
pub(crate) async fn serve(_far: Onion<Substream>, _config: &TlsConfig) -> Result<(), String> {
    Err("this cepa was built without the demo (feature `tools`)".to_owned())
}
