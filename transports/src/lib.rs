//! Floor 0 of cepa: byte streams, and the addresses that name them.
#![forbid(unsafe_code)]

mod side;
pub use side::Side;

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that carries bytes both ways. Implemented for every type that fits.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}
