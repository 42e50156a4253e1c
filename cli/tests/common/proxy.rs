//! A TCP proxy whose connections can be cut, which can be down, and which can fall silent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How often all of them were cut.
    cuts: u64,
    /// How often all of them fell silent, each until it is cut.
    silences: u64,
    /// New ones are reset.
    is_down: bool,
    /// What the client says waits.
    is_held: bool,
}

pub(crate) struct Proxy {
    at: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    state: Arc<watch::Sender<State>>,
    _runtime: Runtime,
}

impl Proxy {
    /// Leads to an address as `cepa` writes it, `tcp:127.0.0.1:PORT`.
    pub(crate) fn to(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(parsed(address)));
        let state = Arc::new(watch::Sender::new(State::default()));
        runtime.spawn(accept(listener, Arc::clone(&to), Arc::clone(&state)));
        Self {
            at,
            to,
            state,
            _runtime: runtime,
        }
    }

    /// As `cepa` dials it.
    pub(crate) fn address(&self) -> String {
        format!("tcp:{}", self.at)
    }

    /// Resets all connections, as when a router has forgotten them.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// From now on nothing passes in the connections that there are, and nobody is told.
    pub(crate) fn fall_silent(&self) {
        self.state.send_modify(|state| state.silences += 1);
    }

    /// From now on what clients say waits, and comes all at once when that is over.
    pub(crate) fn hold(&self, yes: bool) {
        self.state.send_modify(|state| state.is_held = yes);
    }

    /// Cuts all connections; new ones are reset until it is [`up`](Self::up).
    pub(crate) fn down(&self) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.is_down = true;
        });
    }

    pub(crate) fn up(&self) {
        self.state.send_modify(|state| state.is_down = false);
    }

    /// Leads elsewhere from the next connection on.
    pub(crate) fn lead_to(&self, address: &str) {
        *self.to.lock().unwrap() = parsed(address);
    }
}

fn parsed(address: &str) -> SocketAddr {
    address.strip_prefix("tcp:").unwrap().parse().unwrap()
}

async fn until(state: &mut watch::Receiver<State>, is_so: impl Fn(&State) -> bool) {
    let _ = state.wait_for(is_so).await.is_ok();
}

/// Until both ways have ended, or one has failed.
async fn carry(near: &mut TcpStream, far: &mut TcpStream, mut state: watch::Receiver<State>) {
    let (mut from, mut to) = near.split();
    let (mut back_from, mut back_to) = far.split();
    let forth = async {
        let mut bytes = vec![0; 1 << 16];
        loop {
            let mut n = from.read(&mut bytes).await?;
            if n == 0 {
                return back_to.shutdown().await;
            }
            until(&mut state, |now| !now.is_held).await;
            while let Ok(more @ 1..) = from.try_read(&mut bytes[n..]) {
                n += more;
            }
            back_to.write_all(&bytes[..n]).await?;
        }
    };
    let back = async {
        copy(&mut back_from, &mut to).await?;
        to.shutdown().await
    };
    let _ = tokio::try_join!(forth, back);
}

async fn accept(
    listener: TcpListener,
    to: Arc<Mutex<SocketAddr>>,
    state: Arc<watch::Sender<State>>,
) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut state = state.subscribe();
        let begun = *state.borrow();
        if begun.is_down {
            near.set_zero_linger().unwrap();
            continue;
        }
        let to = *to.lock().unwrap();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(to).await else {
                near.set_zero_linger().unwrap();
                return;
            };
            let mut silence = state.clone();
            tokio::select! {
                () = carry(&mut near, &mut far, state.clone()) => return,
                () = until(&mut state, |now| now.cuts != begun.cuts) => {}
                () = until(&mut silence, |now| now.silences != begun.silences) => {
                    until(&mut state, |now| now.cuts != begun.cuts).await;
                }
            }
            near.set_zero_linger().unwrap();
            far.set_zero_linger().unwrap();
        });
    }
}
