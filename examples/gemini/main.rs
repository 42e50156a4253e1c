//! A small Gemini server and client (geminiprotocol.net): client certificates are accounts.
//!
//! ```text
//! gemini server PORT CERT-AND-KEY.pem           (PORT 0: any) prints LISTENING n; commands on standard input
//! gemini get URL [--identity FILE] [--known FILE]
//! ```
//!
//! The server asks for a certificate and takes any, or none; what that means is decided for each page:
//! 60 where one is needed, 61 where it has no account, 62 where its dates don't hold. An account belongs
//! to the key of its certificate. A new key gets the account of an old one by a statement that the old
//! one has signed (`cepa id rotate`), which its certificate carries, or when the operator approves a
//! claim (`approve NAME` on standard input).
//!
//! The client trusts a server's key on first use, in a known-peers file of its own, and shows an identity
//! only where it was told to.
//!
//! ```text
//! cargo run --example gemini -- server 1965 server.pem
//! cargo run --example gemini -- get gemini://localhost/account --known known_hosts --identity me.pem
//! ```

mod client;
mod server;

use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Longest URL in bytes, by the protocol.
const MAX_URL: usize = 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["server", port, identity] => server::run(port, identity).await,
        ["get", url, options @ ..] => match client::options(options) {
            Ok((identity, known)) => client::run(url, identity, known).await,
            Err(error) => Err(error),
        },
        _ => Err(
            "usage: gemini server PORT FILE | gemini get URL [--identity FILE] [--known FILE]"
                .into(),
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemini: {error}");
            ExitCode::FAILURE
        }
    }
}
