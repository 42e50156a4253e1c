//! A serial line between two ptys.

use cepa::transports::testkit::{LineSettings, cable, plug};
use cepa::transports::{Endpoint, listen};

use super::Place;

/// Joins two ptys, `a` and `b`, as long as the runtime lives.
pub(crate) fn join(place: &Place, line: &LineSettings, seed: u64) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let address = |name: &str| -> Endpoint { format!("pty:{}", place.text(name)).parse().unwrap() };
    runtime.block_on(async {
        let (near, far) = cable(line, line, seed);
        let (a, b) = (
            listen(&address("a")).await.unwrap(),
            listen(&address("b")).await.unwrap(),
        );
        tokio::spawn(plug(a, near));
        tokio::spawn(plug(b, far));
    });
    runtime
}
