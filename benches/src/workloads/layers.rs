//! W7: layers of TLS without a mux: an onion, beside tokio-rustls over tokio-rustls.
//!
//! What a layer has to cost is its AEAD: every byte is sealed once and opened once. So one more layer is measured
//! against that, sealing and opening full records in this process in between, with the same suite and provider.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clap::Args;
use serde::Serialize;

use super::bulk::{WARM_UP, carry, mib, rates};
use super::pingpong::play;
use super::shared::{Values, on_workers};
use crate::Outcome;
use crate::measure::{Stopwatch, median};
use crate::peers::{Credentials, Io, Peer, layered};

/// Bytes of a full record: 2^14 and the byte for its type (RFC 8446, section 5.2).
const RECORD: usize = (16 << 10) + 1;

/// Turns of [`Layer`].
const TURNS: usize = 5;

#[derive(Args, Debug, Serialize)]
pub(crate) struct Bulk {
    #[arg(long)]
    peer: Peer,
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// MiB to carry
    #[arg(long, default_value_t = 1024)]
    mib: u64,
}

impl Bulk {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, depth, bytes) = (self.peer, self.depth, self.mib << 20);
        on_workers(1, async move {
            let pair = layered(peer, depth, &*Credentials::new()?).await?;
            let pairs = carry(vec![pair], WARM_UP).await?.pairs;
            Ok(rates(bytes, &carry(pairs, bytes).await?.run))
        })
    }
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Layer {
    #[arg(long)]
    peer: Peer,
    /// MiB to carry in each of the turns
    #[arg(long, default_value_t = 256)]
    mib: u64,
}

impl Layer {
    /// One layer, two layers and the AEAD in turn; medians of each.
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, bytes) = (self.peer, self.mib << 20);
        on_workers(1, async move {
            let credentials = Credentials::new()?;
            let mut one = carry(vec![layered(peer, 1, &credentials).await?], WARM_UP).await?;
            let mut two = carry(vec![layered(peer, 2, &credentials).await?], WARM_UP).await?;
            let mut aead = Aead::new()?;
            aead.turn(WARM_UP)?;
            let (mut ones, mut twos, mut aeads) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..TURNS {
                one = carry(one.pairs, bytes).await?;
                ones.push(one.run.cpu_seconds);
                two = carry(two.pairs, bytes).await?;
                twos.push(two.run.cpu_seconds);
                aeads.push(aead.turn(bytes)?);
            }
            let layer = median(&twos) - median(&ones);
            let per_kib = 1e9 / (mib(bytes) * 1024.0);
            Ok(vec![
                ("layer_to_aead", layer / median(&aeads)),
                ("layer_cpu_ns_per_kib", layer * per_kib),
                ("aead_cpu_ns_per_kib", median(&aeads) * per_kib),
            ])
        })
    }
}

/// Seals and opens full records, in place.
struct Aead {
    key: LessSafeKey,
    record: Vec<u8>,
    sequence: u64,
}

impl Aead {
    fn new() -> Outcome<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32])?;
        Ok(Self {
            key: LessSafeKey::new(key),
            record: vec![0x5A; RECORD],
            sequence: 0,
        })
    }

    /// Seconds of processor time for so many bytes, sealed and opened.
    fn turn(&mut self, bytes: u64) -> Outcome<f64> {
        let watch = Stopwatch::start()?;
        for _ in 0..bytes / (RECORD as u64 - 1) {
            self.sequence += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
            let header = [23, 3, 3, 0x40, 0x11];
            let tag = self.key.seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut self.record,
            )?;
            self.record.extend_from_slice(tag.as_ref());
            let opened = self.key.open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut self.record,
            )?;
            let opened = opened.len();
            self.record.truncate(opened);
        }
        Ok(watch.stop()?.cpu_seconds)
    }
}

#[derive(Args, Debug, Serialize)]
pub(crate) struct Pingpong {
    #[arg(long)]
    peer: Peer,
    #[arg(long, default_value_t = 1)]
    depth: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

impl Pingpong {
    pub(crate) fn run(&self) -> Outcome<Values> {
        let (peer, depth) = (self.peer, self.depth);
        let time = std::time::Duration::from_secs_f64(self.seconds);
        on_workers(1, async move {
            let pair: (Io, Io) = layered(peer, depth, &*Credentials::new()?).await?;
            play(vec![pair], time).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_again() {
        let mut aead = Aead::new().unwrap();
        assert!(aead.turn(1 << 20).unwrap() > 0.0);
        assert_eq!(aead.sequence, 64);
        assert!(aead.record == vec![0x5A; RECORD]);
    }
}
