//! A chat whose server only introduces: the clients talk to each other, and what they say never reaches it.
//!
//! ```text
//! cargo run --example chat
//! cargo run --example chat -- server tcp:127.0.0.1:7000
//! cargo run --example chat -- client ann cepa://SERVERID@tcp:127.0.0.1:7000 tcp:127.0.0.1:0
//! cargo run --example chat -- client bob cepa://SERVERID@tcp:127.0.0.1:7000
//! ```
//!
//! Whoever joins tells the server where it may be found, and gets an introduction to each one who is there. A client
//! that listens nowhere is registered at the server, which is a relay as well; it then carries ciphertext of
//! the two clients. Without arguments this program starts a server and three clients, lets them talk, and searches the
//! server's memory for what they said (and, so that the search is worth something, a client's memory too).
//!
//! | file | holds |
//! | --- | --- |
//! | `server.rs` | introducing |
//! | `client.rs` | joining, talking |
//! | `show.rs` | all of it at once, and the search |

mod client;
mod server;
mod show;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => show::run().await,
        ["server", at] => server::run(at).await,
        ["client", name, server] => client::run(name, server, None).await,
        ["client", name, server, at] => client::run(name, server, Some(at)).await,
        _ => Err("expected nothing, `server ADDR`, or `client NAME SERVER [ADDR]`".into()),
    }
}
