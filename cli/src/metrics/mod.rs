//! `--metrics ADDR`: what a long-running command counts, for Prometheus and what speaks its text format.
//!
//! It is the least of HTTP/1.1 that a scraper needs (RFC 9112): one request a connection, GET or HEAD of `/metrics`, and the connection is
//! closed behind the answer. Whoever can connect may ask, so everything has a bound: a head has its longest length and its time, an answer its
//! time, and so many are served at once; more wait in the system's queue. A body is not read.

mod http;
mod text;

use std::sync::Arc;
use std::time::Duration;

use cepa::transports::{Endpoint, Listener, Target};
use tokio::task::{JoinHandle, JoinSet};

use crate::control::Daemon;
use crate::exit::{Failure, say};
use crate::say::Line;
use crate::stack::is_loopback;
use crate::standing::bind;

/// Scrapers at once: there are one or two, and each needs a moment.
const AT_ONCE: usize = 16;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);

/// Served until this is closed or dropped.
pub(crate) struct Metrics {
    serving: Vec<JoinHandle<()>>,
}

impl Metrics {
    /// Listens at these addresses, which are one port.
    pub(crate) async fn open(
        places: &[Endpoint],
        daemon: Arc<dyn Daemon>,
    ) -> Result<Self, Failure> {
        let listeners = bind(places).await?;
        for listener in &listeners {
            let at = listener.endpoint();
            let (line, open) = match at.target() {
                Target::Tcp { .. } => {
                    let at = at.to_string();
                    let place = at.strip_prefix("tcp:").unwrap_or(&at);
                    let place = place.split(['?', ',']).next().unwrap_or(place);
                    (format!("metrics at http://{place}/metrics"), true)
                }
                _ => (format!("metrics at {at}"), false),
            };
            say(Line::from(&line).with("address", at).bare());
            if open && !is_loopback(at) {
                say(format_args!(
                    "warning: whoever reaches {at} can read the metrics; without TLS, and without a password"
                ));
            }
        }
        let serve = |listener| tokio::spawn(serve(listener, Arc::clone(&daemon)));
        Ok(Self {
            serving: listeners.into_iter().map(serve).collect(),
        })
    }

    /// The address is free when this returns.
    pub(crate) async fn close(mut self) {
        for serving in &mut self.serving {
            serving.abort();
            let _ = serving.await;
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(mut listener: Listener, daemon: Arc<dyn Daemon>) {
    // Ends with this task.
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if asking.len() < AT_ONCE => match accepted {
                Ok(Some(stream)) => {
                    let daemon = Arc::clone(&daemon);
                    let page = move || text::of(&daemon.look());
                    asking.spawn(http::answer(stream, page));
                }
                Ok(None) => return,
                Err(e) => {
                    say(e);
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = asking.join_next() => {}
        }
    }
}
