//! etcd, three relays of the tool, and processes of nodes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cepa::identity::PeerId;
use cepa_fleet::testkit::Etcd;
use serde_json::Value;

use super::options::Options;
use crate::Outcome;
use crate::figure::FLEET;
use crate::measure::number;
use crate::tool::{command, identity};

/// No step takes as long.
const LONGEST: Duration = Duration::from_secs(240);

pub(super) struct Rig {
    pub(super) etcd: Etcd,
    pub(super) relays: Vec<Relay>,
    /// At each relay, while it lives.
    pub(super) nodes: Vec<Vec<PeerId>>,
    crowds: Vec<Child>,
    cepa: PathBuf,
    home: tempfile::TempDir,
}

pub(super) struct Relay {
    child: Child,
    pub(super) id: PeerId,
    /// cepa://ID@tcp:…
    pub(super) address: String,
    control: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let relays = self.relays.iter_mut().map(|it| &mut it.child);
        for child in relays.chain(&mut self.crowds) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Rig {
    pub(super) async fn start(options: &Options) -> Outcome<Self> {
        let beside = || Some(std::env::current_exe().ok()?.with_file_name("cepa"));
        let cepa = options
            .cepa
            .clone()
            .or_else(beside)
            .filter(|it| it.is_file());
        let cepa = cepa.ok_or("no cepa beside this program: build cepa-cli, or give --cepa")?;
        let etcd = Etcd::with(options.etcd, "http", &[])?;
        let mut rig = Self {
            etcd,
            relays: Vec::new(),
            nodes: Vec::new(),
            crowds: Vec::new(),
            cepa,
            home: tempfile::tempdir()?,
        };
        let made = (0..3).map(|n| identity(&rig.cepa, rig.home.path(), &format!("r{n}.pem")));
        let made = made.collect::<Outcome<Vec<_>>>()?;
        for n in 0..3 {
            let relay = rig.relay(n, &made, options)?;
            rig.relays.push(relay);
        }
        rig.until("the relays see each other", |all| {
            all.iter()
                .all(|it| it["present"].as_array().map_or(0, Vec::len) == 2)
        })
        .await?;
        let part = options.nodes / 3;
        for n in 0..3 {
            let before = (rig.relays[0].memory()?, rig.relays[1].memory()?);
            let all = rig.register(n, part, options.processes.div_ceil(3))?;
            rig.nodes.push(all);
            if n == 0 {
                rig.until("the second relay knows them", |all| {
                    count(&all[1], "registrations_elsewhere") >= part
                })
                .await?;
                let after = (rig.relays[0].memory()?, rig.relays[1].memory()?);
                let each = |before: f64, after: f64| (after - before) / number(part.max(1));
                FLEET.figure("memory-own", each(before.0, after.0) / 1024.0, "KiB")?;
                FLEET.figure("memory-elsewhere", each(before.1, after.1), "B")?;
            }
        }
        rig.until("each relay knows all nodes", |all| {
            all.iter().all(|it| {
                count(it, "registrations") + count(it, "registrations_elsewhere") >= 3 * part
            })
        })
        .await?;
        Ok(rig)
    }

    fn relay(&self, n: usize, made: &[(String, String)], options: &Options) -> Outcome<Relay> {
        let (file, id) = &made[n];
        let control = self
            .home
            .path()
            .join(format!("r{n}.sock"))
            .display()
            .to_string();
        // Strangers of one host have a quarter of all, and all of them may come to one relay.
        let most = (options.nodes * 4 + 4000).to_string();
        let store = format!("etcd://{}/bench", self.etcd.hosts());
        let mut words = vec![
            "relay",
            "tcp:127.0.0.1:0",
            "--identity",
            file,
            "--allow",
            "any",
        ];
        words.extend([
            "--registrations",
            &most,
            "--circuits",
            "10000",
            "--circuits-a-peer",
            "2000",
        ]);
        words.extend(["--rate", "100G", "--control", &control, "--fleet", &store]);
        for (_, other) in made.iter().filter(|(_, other)| other != id) {
            words.extend(["--fleet-peer", other]);
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let mut command = command(&self.cepa, self.home.path(), &words);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = child.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(lines).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next().transpose()? else {
                return Err(format!("a relay ended: {said:?}").into());
            };
            if line.starts_with("relaying on ") {
                break line.rsplit(' ').next().unwrap_or_default().to_owned();
            }
            said.push(line);
        };
        // Whatever else it says; or it would wait for somebody who reads.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Relay {
            child,
            id: id.parse()?,
            address,
            control,
        })
    }

    fn register(&mut self, at: usize, count: usize, processes: usize) -> Outcome<Vec<PeerId>> {
        let mut all = Vec::new();
        for n in 0..processes {
            let part = count / processes + usize::from(n < count % processes);
            let mut child = Command::new(std::env::current_exe()?)
                .args(["fleet-nodes", "--relay", &self.relays[at].address])
                .args(["--count", &part.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let out = child.stdout.take().ok_or("no output")?;
            self.crowds.push(child);
            for line in BufReader::new(out).lines() {
                let line = line?;
                if line.is_empty() {
                    break;
                }
                all.push(line.parse()?);
            }
        }
        if all.len() < count {
            return Err(format!("{} of {count} nodes registered", all.len()).into());
        }
        Ok(all)
    }

    /// What each relay shows of the fleet; nothing of one that is gone.
    pub(super) fn look(&mut self) -> Outcome<Vec<Value>> {
        let mut all = Vec::new();
        for relay in &mut self.relays {
            if !matches!(relay.child.try_wait(), Ok(None)) {
                all.push(Value::Null);
                continue;
            }
            let words = ["status", "--json", "--control", &relay.control].map(str::to_owned);
            let shown = command(&self.cepa, self.home.path(), &words).output()?;
            let mut value: Value = serde_json::from_slice(&shown.stdout)?;
            all.push(value["fleet"].take());
        }
        Ok(all)
    }

    /// Waits for that; how long it took.
    pub(super) async fn until(
        &mut self,
        what: &str,
        is: impl Fn(&[Value]) -> bool,
    ) -> Outcome<Duration> {
        let begun = Instant::now();
        loop {
            let all = self.look()?;
            if is(&all) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > LONGEST {
                return Err(format!("waited in vain until {what}: {all:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// As `kill -9` does.
    pub(super) fn kill(&mut self, n: usize) -> Outcome<()> {
        self.relays[n].child.kill()?;
        self.relays[n].child.wait()?;
        Ok(())
    }

    pub(super) fn folder(&self) -> &Path {
        self.etcd.folder()
    }
}

impl Relay {
    pub(super) fn cpu(&self) -> Outcome<f64> {
        crate::measure::cpu_seconds_of(self.child.id())
    }

    pub(super) fn memory(&self) -> Outcome<f64> {
        crate::measure::resident_bytes_of(self.child.id())
    }
}

pub(super) fn count(fleet: &Value, name: &str) -> usize {
    let number = fleet[name].as_u64().unwrap_or_default();
    usize::try_from(number).unwrap_or(usize::MAX)
}
