//! How this process dials its peers: by a proxy, where one was chosen, and shown as the library shows its own dials.

use std::sync::{Arc, OnceLock};

use cepa::transports::{self, Endpoint, Proxies, Stream, TransportError};

use crate::trace;

/// Through which proxies this process dials its peers, where addresses name none.
static PROXIES: OnceLock<Arc<Proxies>> = OnceLock::new();

/// To be called once, before anything is dialled.
pub(crate) fn use_proxies(proxies: Proxies) {
    let _ = PROXIES.set(Arc::new(proxies));
}

/// The same for what the library dials.
pub(crate) fn proxies() -> Option<Arc<Proxies>> {
    PROXIES.get().map(Arc::clone)
}

/// As [`transports::dial`], by a proxy if there is one.
pub(crate) async fn dial(address: &Endpoint) -> Result<Stream, TransportError> {
    let by_proxy = PROXIES.get().map(|proxies| proxies.on(address));
    let address = by_proxy.as_ref().unwrap_or(address);
    trace::dialling(address);
    let dialled = transports::dial(address).await;
    if let Err(error) = &dialled {
        trace::dial_failed(address, error);
    }
    dialled
}
