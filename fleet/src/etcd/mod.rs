//! An etcd as a client sees it: where it is, what is read, written and watched there. It knows nothing of relays.
//!
//! | file | holds |
//! | --- | --- |
//! | `proto.rs` | the messages |
//! | `tls.rs` | the way to one etcd |
//! | `client.rs` | a connection and its calls |
//! | `error.rs` | why a call failed |

mod client;
mod error;
mod proto;
mod tls;

pub use client::{
    Change, Client, Entry, Login, MOST, MOST_OPS, MOST_WRITTEN, Options, Page, Watch, Write, end_of,
};
pub use error::{BadCertificate, EtcdError};
pub(crate) use tls::look;
pub use tls::{BadTls, Tls};
