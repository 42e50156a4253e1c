//! The driver: asks, judges, and goes through the scenarios.

use cepa::Side;
use sha2::{Digest, Sha256};

use crate::protocol::{End, Line, Outcome, Profile, hex};

const SCENARIOS: [&str; 7] = ["basic", "deep", "now", "rev", "mixed", "bulk", "errors"];

/// Where `mixed` starts: a seed whose 60 steps make 31 pushes, end two layers deep, and get as many
/// answers as every driver of this protocol counts.
const MIXED: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Push {
    /// Asked for and granted before the handshake begins.
    Plain,
    /// The ClientHello comes with the command.
    Now,
    /// The responder is the TLS client.
    Rev,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pop {
    /// Only a close_notify.
    Bare,
    /// Said first.
    Announced,
    /// The responder closes first.
    Me,
    /// Both at once.
    Both,
}

pub(crate) struct Settings {
    pub(crate) strict: bool,
    pub(crate) scenario: String,
    pub(crate) bulk: usize,
}

pub(crate) async fn run(end: &mut End, settings: &Settings) -> Outcome<()> {
    let mut driver = Driver {
        end,
        settings,
        echoes: 0,
    };
    let depth = driver.end.layers.len();
    driver
        .ask("HELLO olp/1", &format!("HELLO olp/1 {depth}"))
        .await?;
    let names: Vec<&str> = match settings.scenario.as_str() {
        "all" => SCENARIOS.to_vec(),
        some => some.split(',').collect(),
    };
    for name in names {
        driver
            .scenario(name)
            .await
            .map_err(|error| format!("{name}: {error}"))?;
    }
    driver.ask("QUIT", "BYE").await
}

struct Driver<'a> {
    end: &'a mut End,
    settings: &'a Settings,
    echoes: usize,
}

impl Driver<'_> {
    async fn scenario(&mut self, name: &str) -> Outcome<()> {
        match name {
            "basic" => self.basic().await,
            "deep" => self.deep(Push::Plain).await,
            "now" => self.deep(Push::Now).await,
            "rev" => self.deep(Push::Rev).await,
            "mixed" => self.mixed().await,
            "bulk" => self.bulk().await,
            "errors" => self.errors().await,
            _ => Err(format!("no such scenario, there are {}", SCENARIOS.join(", ")).into()),
        }
    }

    async fn basic(&mut self) -> Outcome<()> {
        self.echo().await?;
        for pop in [Pop::Announced, Pop::Bare, Pop::Me, Pop::Both] {
            self.push('A', Push::Plain).await?;
            self.echo().await?;
            self.who().await?;
            self.pop(pop).await?;
            self.echo().await?;
        }
        Ok(())
    }

    async fn deep(&mut self, push: Push) -> Outcome<()> {
        let orders = [
            ("ABC", [Pop::Bare, Pop::Me, Pop::Announced]),
            ("CBA", [Pop::Me, Pop::Both, Pop::Bare]),
            ("BAC", [Pop::Both, Pop::Announced, Pop::Me]),
        ];
        for (letters, pops) in orders {
            for letter in letters.chars() {
                self.push(letter, push).await?;
                self.who().await?;
                self.echo().await?;
            }
            for pop in pops {
                self.pop(pop).await?;
                self.echo().await?;
                self.who().await?;
            }
        }
        Ok(())
    }

    async fn mixed(&mut self) -> Outcome<()> {
        for step in mixed_steps(MIXED) {
            match step {
                Step::Push(letter, push) => self.push(letter, push).await?,
                Step::Pop(pop) => self.pop(pop).await?,
            }
            self.who().await?;
            self.echo().await?;
        }
        while self.end.layers.len() > self.end.base {
            self.pop(Pop::Bare).await?;
        }
        self.echo().await
    }

    async fn bulk(&mut self) -> Outcome<()> {
        let n = self.settings.bulk;
        self.send_bulk(n).await?;
        for letter in "ABC".chars() {
            self.push(letter, Push::Now).await?;
            for n in [n, 16_384, 1] {
                self.send_bulk(n).await?;
            }
        }
        for pop in [Pop::Me, Pop::Bare, Pop::Both] {
            self.pop(pop).await?;
            self.send_bulk(n).await?;
        }
        Ok(())
    }

    async fn errors(&mut self) -> Outcome<()> {
        for command in ["STOPME", "STOPTLS", "STOPBOTH"] {
            self.ask(command, "ERR depth").await?;
        }
        self.ask("STARTTLS Z", "ERR profile").await?;
        self.ask("NONSENSE", "ERR command").await
    }

    async fn ask(&mut self, command: &str, answer: &str) -> Outcome<()> {
        self.end.send(&format!("{command}\n")).await?;
        self.expect(answer).await
    }

    async fn expect(&mut self, wanted: &str) -> Outcome<()> {
        match self.end.line().await? {
            Line::Text(got) if got == wanted => {
                self.end.counts.lines += 1;
                Ok(())
            }
            got => Err(format!("wanted {wanted:?}, got {got:?}").into()),
        }
    }

    async fn echo(&mut self) -> Outcome<()> {
        self.echoes += 1;
        let text = format!("echo number {} of this run", self.echoes);
        let depth = self.end.layers.len();
        self.ask(&format!("ECHO {text}"), &format!("ECHOED {depth} {text}"))
            .await
    }

    /// Both ends see the same layers, and each the certificate that the other showed.
    async fn who(&mut self) -> Outcome<()> {
        self.end.send("WHO\n").await?;
        let got = self.end.line().await?;
        let credentials = &self.end.credentials;
        let mine = |layer: usize| {
            let profile = self.end.layers.get(layer);
            profile.map_or_else(String::new, |p| credentials.fingerprint(*p))
        };
        let wanted = format!("WHO {}", self.end.view(mine));
        if got != Line::Text(wanted.clone()) {
            return Err(format!("wanted {wanted:?}, got {got:?}").into());
        }
        // The peer's certificate needs no look: each layer pins it.
        for (profile, layer) in self.end.layers.iter().zip(self.end.onion.layers()) {
            let (version, suite) = (layer.peer().version(), layer.peer().suite());
            if version != profile.version || (self.settings.strict && suite != profile.suite) {
                let letter = profile.letter;
                return Err(format!("layer {letter} runs {version:?}, suite {suite:04x}").into());
            }
        }
        Ok(())
    }

    async fn push(&mut self, letter: char, how: Push) -> Outcome<()> {
        let profile = Profile::named(&letter.to_string()).ok_or("no such profile")?;
        let side = match how {
            Push::Plain => {
                self.ask(&format!("STARTTLS {letter}"), &format!("PROCEED {letter}"))
                    .await?;
                Side::Client
            }
            Push::Now => {
                self.end
                    .send_with_next(&format!("STARTTLS-NOW {letter}\n"))
                    .await?;
                Side::Client
            }
            Push::Rev => {
                self.ask(
                    &format!("STARTTLS-REV {letter}"),
                    &format!("PROCEED {letter}"),
                )
                .await?;
                Side::Server
            }
        };
        self.end.push(profile, side).await?;
        self.end.counts.pushes += 1;
        Ok(())
    }

    async fn pop(&mut self, how: Pop) -> Outcome<()> {
        match how {
            Pop::Bare => {}
            Pop::Announced => self.ask("STOPTLS", "OK STOPTLS").await?,
            Pop::Me => {
                self.end.send("STOPME\n").await?;
                match self.end.line().await? {
                    Line::Popped => {}
                    got => return Err(format!("wanted a close, got {got:?}").into()),
                }
            }
            Pop::Both => self.end.send_with_next("STOPBOTH\n").await?,
        }
        self.end.pop().await?;
        let depth = self.end.layers.len();
        self.expect(&format!("STOPPED {depth}")).await
    }

    async fn send_bulk(&mut self, n: usize) -> Outcome<()> {
        let mut random = Random(n as u64 + 1);
        let data: Vec<u8> = (0..n).map(|_| random.next().to_be_bytes()[0]).collect();
        self.end.send_with_next(&format!("BULK {n}\n")).await?;
        self.end.send_bytes(&data).await?;
        self.expect(&format!("BULK {n} {}", hex(&Sha256::digest(&data))))
            .await?;
        if self.end.exactly(n).await? != data {
            return Err(format!("a bulk of {n} bytes came back changed").into());
        }
        self.end.counts.bulk += 2 * n;
        Ok(())
    }
}

enum Step {
    Push(char, Push),
    Pop(Pop),
}

/// 60 pushes and pops, at most three deep.
fn mixed_steps(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let mut depth = 0;
    let mut steps = Vec::new();
    for _ in 0..60 {
        if depth == 0 || (depth < 3 && random.below(2) == 0) {
            let letter = ['A', 'B', 'C'][usize::from(random.below(3))];
            let push = [Push::Plain, Push::Now, Push::Rev][usize::from(random.below(3))];
            steps.push(Step::Push(letter, push));
            depth += 1;
        } else {
            let pops = [Pop::Bare, Pop::Me, Pop::Announced, Pop::Both];
            steps.push(Step::Pop(pops[usize::from(random.below(4))]));
            depth -= 1;
        }
    }
    steps
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u8) -> u8 {
        u8::try_from(self.next() % u64::from(n)).unwrap_or(0)
    }
}
