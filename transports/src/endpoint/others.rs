//! An address as somebody else can use it.

use super::types::{Endpoint, Target};

impl Endpoint {
    /// The address for somebody else: the place, without what this machine puts into its own way there. A proxy and its password, the
    /// headers of a request, the way out (`bind`, `interface`, `mark`) and the files of a listener are of no use elsewhere, and nobody
    /// else's business.
    #[must_use]
    pub fn for_others(&self) -> Self {
        let mut others = self.clone();
        let tcp = match &mut others.target {
            Target::Tcp { settings, .. } => Some(settings),
            Target::Ws { settings, .. } => {
                settings.headers.clear();
                if let Some(tls) = &mut settings.tls {
                    (tls.cert, tls.key) = (None, None);
                }
                Some(&mut settings.tcp)
            }
            Target::Rfc2217 { settings, .. } => Some(&mut settings.tcp),
            Target::Quic { settings, .. } => {
                (settings.way, settings.proxy) = (None, None);
                None
            }
            _ => None,
        };
        if let Some(tcp) = tcp {
            (tcp.way, tcp.proxy, tcp.proxy_from) = (None, None, None);
        }
        others
    }
}
