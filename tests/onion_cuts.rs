//! Random scripts of sends, pushes and pops over a pipe that cuts bytes at random places: whatever
//! the cuts, each byte arrives in the layer in which it was sent, and none is lost below a close.
//!
//! It goes on until 100,000 cuts were made; `CEPA_CUTS=n` asks for another number. A failure names
//! its seed.

mod support;

use std::time::Duration;

use cepa::Side;
use cepa::onion::Onion;
use cepa::tls::TlsError;
use support::{Cut, Cuts, Pair, Random, onions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// `from` sends; with `flush` false the bytes wait for what comes next.
    Send {
        from: End,
        bytes: usize,
        flush: bool,
    },
    /// A new layer; with `glued` the client's hello leaves with a byte before it.
    Push { client: End, glued: bool },
    /// `first` closes, the other answers; with both, the closes cross. Before it, the other sends
    /// `unread` bytes that the first has not read when it closes.
    Pop { first: Option<End>, unread: usize },
}

fn script(random: &mut Random) -> Vec<Op> {
    let mut depth = 0;
    let mut ops = Vec::new();
    let end = |random: &mut Random| {
        if random.below(2) == 0 {
            End::Left
        } else {
            End::Right
        }
    };
    while ops.len() < 24 || depth > 0 {
        let winding_down = ops.len() >= 24;
        ops.push(match random.below(4) {
            0 if depth < 3 && !winding_down => {
                depth += 1;
                Op::Push {
                    client: end(random),
                    glued: random.below(2) == 0,
                }
            }
            1 if depth > 0 => {
                depth -= 1;
                let first = match random.below(3) {
                    0 => None,
                    _ => Some(end(random)),
                };
                let unread = if first.is_some() {
                    random.below(3) * random.below(3_000)
                } else {
                    0
                };
                Op::Pop { first, unread }
            }
            _ => Op::Send {
                from: end(random),
                bytes: match random.below(4) {
                    0 => random.below(10),
                    1 | 2 => random.below(2_000),
                    _ => random.below(40_000),
                },
                flush: random.below(3) > 0,
            },
        });
    }
    ops
}

/// The bytes of one step; both ends know them.
fn bytes_of(step: usize, n: usize) -> Vec<u8> {
    Random::new(step as u64 + 1).bytes(n)
}

async fn check(onion: &mut Onion<Cut>, step: usize, n: usize) {
    // What was written and not flushed must leave before we wait for the other end.
    onion.flush().await.unwrap();
    let mut got = vec![0; n];
    onion
        .read_exact(&mut got)
        .await
        .unwrap_or_else(|e| panic!("step {step}: {e}"));
    assert!(got == bytes_of(step, n), "step {step}: other bytes arrived");
}

async fn play(me: End, mut onion: Onion<Cut>, pair: &Pair, ops: &[Op]) -> Onion<Cut> {
    let config = if me == End::Left {
        &pair.left_tls
    } else {
        &pair.right_tls
    };
    for (step, op) in ops.iter().enumerate() {
        match *op {
            Op::Send { from, bytes, flush } if from == me => {
                onion.write_all(&bytes_of(step, bytes)).await.unwrap();
                if flush {
                    onion.flush().await.unwrap();
                }
            }
            Op::Send { bytes, .. } => check(&mut onion, step, bytes).await,
            Op::Push { client, glued } => {
                let side = if client == me {
                    Side::Client
                } else {
                    Side::Server
                };
                if glued && client == me {
                    onion.flush().await.unwrap();
                    onion.cork();
                    onion.write_all(b"!").await.unwrap();
                } else if glued {
                    onion.flush().await.unwrap();
                    assert_eq!(onion.read_u8().await.unwrap(), b'!');
                }
                onion
                    .push(side, config)
                    .await
                    .unwrap_or_else(|e| panic!("step {step}: {e}"));
            }
            Op::Pop { first: None, .. } => {
                onion
                    .pop()
                    .await
                    .unwrap_or_else(|e| panic!("step {step}: {e}"));
            }
            Op::Pop {
                first: Some(first),
                unread,
            } if first == me => {
                let mut heard = Vec::new();
                while let Err(error) = onion.pop().await {
                    assert!(matches!(error, TlsError::Unread), "step {step}: {error}");
                    let n = onion.read_to_end(&mut heard).await.unwrap();
                    assert!(
                        n > 0,
                        "step {step}: unread data was reported, and there is none"
                    );
                }
                assert!(
                    heard == bytes_of(step, unread),
                    "step {step}: unread data was lost"
                );
            }
            Op::Pop { unread, .. } => {
                onion.write_all(&bytes_of(step, unread)).await.unwrap();
                onion.flush().await.unwrap();
                let mut rest = Vec::new();
                onion.read_to_end(&mut rest).await.unwrap();
                assert!(
                    rest.is_empty(),
                    "step {step}: {} bytes too many",
                    rest.len()
                );
                onion
                    .pop()
                    .await
                    .unwrap_or_else(|e| panic!("step {step}: {e}"));
            }
        }
    }
    onion.flush().await.unwrap();
    onion
}

#[tokio::test]
async fn no_cut_loses_a_byte() {
    let wanted = std::env::var("CEPA_CUTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let pair = Pair::new();
    let (mut cuts, mut seed, mut steps) = (0, 0, 0);
    while cuts < wanted {
        seed += 1;
        let mut random = Random::new(seed);
        let ops = script(&mut random);
        let (left, right) = onions(1 + random.below(70_000), Cuts::Random(seed));
        let both = async {
            tokio::join!(
                play(End::Left, left, &pair, &ops),
                play(End::Right, right, &pair, &ops)
            )
        };
        // A hang is a fault as well; the time is far beyond what a busy machine needs.
        let played = tokio::time::timeout(Duration::from_secs(60), both).await;
        let (left, right) = played.unwrap_or_else(|_| panic!("seed {seed} hung: {ops:?}"));
        steps += ops.len();
        for onion in [left, right] {
            let (wire, rest) = onion
                .into_wire()
                .unwrap_or_else(|o| panic!("seed {seed}: {o:?}"));
            assert!(rest.is_empty(), "seed {seed}: bytes are left over");
            cuts += wire.cuts();
        }
    }
    println!("{cuts} cuts in {seed} scripts of {steps} steps: no byte lost");
}
