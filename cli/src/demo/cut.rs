//! What cuts the demo's TCP connection: a proxy in this process, in front of the server. Told to, it drops the connection that
//! it carries with all that is on its way, and takes the next one.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::exit::{Code, Failure};

/// Ends with this.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Cuts the connection that there is, or the next one.
    pub(super) cut: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A proxy that leads to a port of this machine, and its own port.
pub(super) async fn in_front_of(port: u16) -> Result<(Cutter, u16), Failure> {
    let local = "127.0.0.1";
    let failed = |e: std::io::Error| Failure::new(Code::Local, format!("cannot listen: {e}"));
    let listener = TcpListener::bind((local, 0)).await.map_err(failed)?;
    let own = listener.local_addr().map_err(failed)?.port();
    let cut = Arc::new(Notify::new());
    let is_cut = Arc::clone(&cut);
    let task = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let Ok(mut far) = TcpStream::connect((local, port)).await else {
                continue;
            };
            // What is small is not held back for what comes behind it.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            tokio::select! {
                biased;
                () = is_cut.notified() => {}
                _ = copy_bidirectional(&mut near, &mut far) => {}
            }
        }
    });
    Ok((Cutter { cut, task }, own))
}
