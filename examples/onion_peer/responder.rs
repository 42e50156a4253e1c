//! The responder: answers commands in order, pushes and pops as it is told.

use cepa::Side;
use sha2::{Digest, Sha256};

use crate::protocol::{End, Line, Outcome, Profile, hex};

pub(crate) async fn run(end: &mut End) -> Outcome<()> {
    loop {
        let line = match end.line().await? {
            Line::Text(line) => line,
            Line::End => return Ok(()),
            Line::Popped => {
                end.pop().await?;
                stopped(end).await?;
                continue;
            }
        };
        end.counts.lines += 1;
        let depth = end.layers.len();
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "HELLO" => end.send(&format!("HELLO olp/1 {depth}\n")).await?,
            "ECHO" => end.send(&format!("ECHOED {depth} {argument}\n")).await?,
            "WHO" => {
                let layers = end.onion.layers();
                // Each profile shows a certificate.
                let shown: Vec<_> = layers
                    .iter()
                    .filter_map(|l| l.peer().certificate_sha256())
                    .collect();
                let view = end.view(|layer| shown.get(layer).map_or_else(String::new, |s| hex(s)));
                end.send(&format!("WHO {view}\n")).await?;
            }
            "BULK" => bulk(end, argument).await?,
            "STARTTLS" | "STARTTLS-NOW" | "STARTTLS-REV" => {
                let Some(profile) = Profile::named(argument) else {
                    end.send("ERR profile\n").await?;
                    continue;
                };
                let proceed = format!("PROCEED {argument}\n");
                let side = match command {
                    "STARTTLS" => {
                        end.send(&proceed).await?;
                        Side::Server
                    }
                    "STARTTLS-NOW" => Side::Server,
                    _ => {
                        end.send_with_next(&proceed).await?;
                        Side::Client
                    }
                };
                end.push(profile, side).await?;
                end.counts.pushes += 1;
            }
            "STOPTLS" | "STOPME" | "STOPBOTH" if depth <= end.base => {
                end.send("ERR depth\n").await?;
            }
            "STOPTLS" => end.send("OK STOPTLS\n").await?,
            "STOPME" | "STOPBOTH" => {
                end.pop().await?;
                stopped(end).await?;
            }
            "QUIT" => return end.send("BYE\n").await,
            _ => end.send("ERR command\n").await?,
        }
    }
}

async fn stopped(end: &mut End) -> Outcome<()> {
    let line = format!("STOPPED {}\n", end.layers.len());
    end.send(&line).await
}

async fn bulk(end: &mut End, count: &str) -> Outcome<()> {
    let n: usize = count
        .parse()
        .map_err(|_| format!("BULK wants a number, not {count:?}"))?;
    let bytes = end.exactly(n).await?;
    end.counts.bulk += n;
    end.send(&format!("BULK {n} {}\n", hex(&Sha256::digest(&bytes))))
        .await?;
    end.send_bytes(&bytes).await
}
