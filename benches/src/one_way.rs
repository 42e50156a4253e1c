//! A service's stream of a session, and bulk one way on it, or on any other stream.

use cepa::session::{ServiceStream, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Outcome;
use crate::measure::{Run, Stopwatch};

/// Bytes of one write.
const WRITE: usize = 64 << 10;

/// A substream of a session and its other end.
pub(crate) async fn pair(near: &Session, far: &Session) -> Outcome<(ServiceStream, ServiceStream)> {
    let (opened, accepted) = tokio::join!(near.open("bench"), async {
        Outcome::Ok(far.accept().await?.accept().await?)
    });
    Ok((opened?, accepted?))
}

/// So many bytes one way, up to the answer that all have come.
pub(crate) async fn bulk<S>((mut out, mut into): (S, S), bytes: u64) -> Outcome<Run>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let reading = tokio::spawn(async move {
        let mut space = vec![0; WRITE];
        let mut left = bytes;
        while left > 0 {
            let n = into.read(&mut space).await?;
            if n == 0 {
                return Err("the stream ended early".into());
            }
            left -= n as u64;
        }
        into.write_u8(1).await?;
        into.flush().await?;
        Outcome::Ok(into)
    });
    let piece = vec![7; WRITE];
    let watch = Stopwatch::start()?;
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(WRITE).min(WRITE);
        out.write_all(piece.get(..n).unwrap_or_default()).await?;
        left -= n as u64;
    }
    out.flush().await?;
    out.read_u8().await?;
    let run = watch.stop()?;
    reading.await??;
    Ok(run)
}
