//! lrzsz and gensio on the simulated line at 115,200 baud, in real time. Where one is not installed it says so.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cepa::transports::testkit::{LineSettings, Noise, cable, fill, plug};
use cepa::transports::{Endpoint, listen};
use tokio::process::Command;

use super::goodput::percent;
use crate::Outcome;
use crate::measure::is_installed;

const RATE: f64 = 11_520.0;
const BYTES: usize = 40_000;

/// What has not ended by then is taken not to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for (label, bit_errors) in [("0", 0.0), ("1e-5", 1e-5)] {
        for (name, tools, script) in [
            ("lrzsz", &["sz", "rz"][..], LRZSZ),
            ("gensio", &["gensiot"], GENSIO),
        ] {
            let what = format!("{name}-115200-ber-{label}");
            if tools.iter().all(|tool| is_installed(tool)) {
                match runtime.block_on(transfer(script, bit_errors))? {
                    Some(percent) => println!("{what} {percent:.2}"),
                    None => println!("{what} did not arrive"),
                }
            } else {
                println!("{what} SKIPPED: not installed");
            }
        }
    }
    Ok(())
}

/// Sends the file `data` from the line `a` to `out/data` over `b`, and ends when it is there.
const LRZSZ: &str =
    "mkdir out; (cd out && timeout 30 rz -q -y <../b >../b) & sz -q data <a >a; wait";

/// The same with its reliable packets. The receiver does not know the end, so it is ended when all is there.
const GENSIO: &str = "mkdir out; gensiot -a -i 'file(outfile=out/data,create)' \
    'relpkt,msgdelim,conacc,serialdev(nouucplock),b,115200n81' & receiver=$!; sleep 0.5; \
    gensiot -i 'file(infile=data)' 'relpkt,msgdelim,serialdev(nouucplock),a,115200n81' & sender=$!; \
    while kill -0 $receiver && [ \"$(stat -c %s out/data)\" != 40000 ]; do sleep 0.02; done; \
    kill $receiver $sender";

/// Percent of the line, or nothing where the bytes did not all arrive.
async fn transfer(script: &str, bit_errors: f64) -> Outcome<Option<f64>> {
    let noise = Noise {
        bit_errors,
        ..Noise::default()
    };
    let line = LineSettings {
        noise,
        ..LineSettings::new(RATE)
    };
    let folder = tempfile::tempdir()?;
    let (near, far) = cable(&line, &line, 1);
    let ends = [
        listener(folder.path(), "a").await?,
        listener(folder.path(), "b").await?,
    ];
    let [a, b] = ends;
    let plugs = [tokio::spawn(plug(a, near)), tokio::spawn(plug(b, far))];
    let mut data = vec![0; BYTES];
    fill(1, 0, &mut data);
    std::fs::write(folder.path().join("data"), &data)?;
    let started = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    let took = started.elapsed();
    if ended.is_err() {
        end_group(child.id());
    }
    for plug in plugs {
        plug.abort();
    }
    let got = std::fs::read(folder.path().join("out/data")).unwrap_or_default();
    Ok((got == data).then(|| percent(BYTES as u64, took, RATE)))
}

/// Ends the programs that the script has started.
fn end_group(leader: Option<u32>) {
    let leader = leader.and_then(|pid| i32::try_from(pid).ok());
    if let Some(leader) = leader {
        let group = nix::unistd::Pid::from_raw(leader);
        // An error means that nobody is left.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

async fn listener(folder: &Path, name: &str) -> Outcome<cepa::transports::Listener> {
    let address: Endpoint = format!("pty:{}", folder.join(name).display()).parse()?;
    Ok(listen(&address).await?)
}
