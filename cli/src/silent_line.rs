//! A line on which nobody answers: what is heard there meanwhile, and what that means.
//!
//! ```text
//!   nothing ------------------> is the cable right, is somebody there?
//!   bytes, none of them frames > is the rate right?
//!   a login prompt -----------> no cepa runs there
//! ```
//!
//! It is said on standard error, once for each of the three, and only upwards in this order; nothing once a frame has come.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cepa::link::{ChatterSink, Config, StatsHandle};
use cepa::transports::Endpoint;
use tokio::time::sleep;

use crate::exit::say;

/// Ends a frame of the link, and begins the next.
const FLAG: u8 = 0x7e;

/// How long silence is nothing to speak of.
const SILENT: Duration = Duration::from_secs(5);

/// How often it is looked after that.
const LOOK: Duration = Duration::from_secs(1);

/// What is shown may take so long to be there.
const SHOWN: Duration = Duration::from_millis(100);

/// Of what was heard last, as much as a prompt may have.
const TAIL: usize = 256;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A command that wants a session.
    Dials,
    /// `cepa serve`.
    Serves,
    /// `cepa probe`.
    Probes,
}

/// What is heard on a line. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    bytes: Arc<Mutex<Bytes>>,
    stats: StatsHandle,
    /// Where it is shown, too.
    shown: Option<ChatterSink>,
}

#[derive(Debug, Default)]
struct Bytes {
    count: u64,
    /// The last of them, and whether a login was ever among them.
    tail: Vec<u8>,
    login: bool,
    /// The last byte that was shown.
    shown: Option<u8>,
    /// How many frames had come when something was last heard that is none.
    frames: u64,
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Means {
    Nothing,
    NoFrames,
    Login,
}

impl Heard {
    /// Hears what a link hears that is not its own; `more` does so too.
    pub(crate) fn on(link: &mut Config, more: Option<(&ChatterSink, &StatsHandle)>) -> Self {
        let (chatter, stats) = more.unzip();
        let heard = Self {
            stats: stats.cloned().unwrap_or_default(),
            shown: chatter.cloned(),
            ..Self::default()
        };
        let this = heard.clone();
        link.chatter = Some(Arc::new(move |bytes: &[u8]| {
            this.take(bytes);
            if let Some(shown) = &this.shown {
                let bytes = this.to_show(bytes);
                if !bytes.is_empty() {
                    shown(&bytes);
                }
            }
        }));
        link.stats = Some(heard.stats.clone());
        heard
    }

    /// This came, and was nothing that is understood.
    pub(crate) fn take(&self, bytes: &[u8]) {
        let mut heard = self.lock();
        heard.count += bytes.len() as u64;
        heard.tail.extend(bytes);
        let over = heard.tail.len().saturating_sub(TAIL);
        heard.tail.drain(..over);
        heard.login |= is_login(&heard.tail);
    }

    /// What of it a person wants to see: before the first frame only text, since a line may still hold frames of an earlier link, whole and
    /// in parts.
    fn to_show<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let frames = self.stats.stats().unwrap_or_default().received;
        let mut heard = self.lock();
        // The frames that came with it may stand behind it.
        let shown = match std::mem::replace(&mut heard.frames, frames) {
            0 => Cow::Owned(only_text(bytes)),
            _ => Cow::Borrowed(bytes),
        };
        heard.shown = shown.last().copied().or(heard.shown);
        shown
    }

    /// What is to be said where somebody is asked to log in, though a probe has taken the echo of that for a loopback plug.
    pub(crate) fn login(&self, address: &Endpoint) -> Option<String> {
        let login = self.lock().login;
        login.then(|| text(Means::Login, address, Who::Probes))
    }

    /// Says why nobody answers, as long as that is so. Never ends.
    pub(crate) async fn tell_why_silent(&self, address: &Endpoint, who: Who) {
        let mut said = None;
        sleep(SILENT).await;
        loop {
            match self.means() {
                // Somebody is there.
                None => return pending().await,
                now => {
                    if now > said {
                        said = now;
                        if let Some(means) = now {
                            self.end_line().await;
                            say(text(means, address, who));
                        }
                    }
                }
            }
            sleep(LOOK).await;
        }
    }

    /// What is shown of the line ends there before something is said of it.
    async fn end_line(&self) {
        let ends = self.lock().shown.is_none_or(|last| last == b'\n');
        if let Some(shown) = self.shown.as_ref().filter(|_| !ends) {
            shown(b"\n");
            sleep(SHOWN).await;
        }
    }

    /// What comes of this, and what is said meanwhile.
    pub(crate) async fn meanwhile<T>(
        silence: impl Future<Output = ()>,
        what: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            done = what => done,
            () = async { silence.await; pending().await } => pending().await,
        }
    }

    /// None once a frame came.
    fn means(&self) -> Option<Means> {
        let stats = self.stats.stats().unwrap_or_default();
        let heard = self.lock();
        if is_prompt(&heard.tail) && stats.received == 0 {
            return Some(Means::Login);
        }
        match (stats.received, heard.count + stats.invalid) {
            (1.., _) => None,
            (0, 0) => Some(Means::Nothing),
            (0, _) => Some(Means::NoFrames),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        // It is whole after every statement.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands between frames: pieces between flags that are text, with the flags between two of them.
fn only_text(bytes: &[u8]) -> Vec<u8> {
    let (mut text, mut behind_text) = (Vec::new(), false);
    for (n, piece) in bytes.split(|byte| *byte == FLAG).enumerate() {
        if is_frame_like(piece) {
            behind_text = false;
            continue;
        }
        if behind_text && n > 0 {
            text.push(FLAG);
        }
        text.extend(piece);
        behind_text = !piece.is_empty();
    }
    text
}

/// Of a frame, more than half the bytes are none of text; of text with some noise, few are.
fn is_frame_like(piece: &[u8]) -> bool {
    let strange = |c: char| c.is_control() && !"\t\n\r\x08\x07\x1b".contains(c);
    let strange = |text: &str| text.chars().filter(|c| strange(*c)).count();
    let of_chunk = |it: std::str::Utf8Chunk<'_>| it.invalid().len() + strange(it.valid());
    piece.utf8_chunks().map(of_chunk).sum::<usize>() * 4 > piece.len()
}

/// Whether somebody is asked to log in, or to type a command.
fn is_prompt(tail: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tail).to_lowercase();
    let text = text.trim_end_matches(['\0', '\u{7}']);
    is_login(tail) || ["$ ", "# ", "=> "].iter().any(|end| text.ends_with(end))
}

fn is_login(tail: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tail).to_lowercase();
    ["login:", "password:"]
        .iter()
        .any(|word| text.contains(word))
}

fn text(means: Means, address: &Endpoint, who: Who) -> String {
    let mut text = match means {
        Means::Nothing => "nothing heard for 5 s: ".to_owned(),
        Means::NoFrames => "bytes but no frames: is the rate right? ".to_owned(),
        Means::Login => {
            "a login prompt is heard, so no cepa runs there: log in with a terminal program, and start it".to_owned()
        }
    };
    let line = crate::exit::quoted(&address.to_string());
    let there = match who {
        Who::Dials => "`cepa serve` on that line",
        Who::Serves => "a command that connects",
        Who::Probes => "`cepa probe --answer` on that line",
    };
    let cable = "the device the right one (`cepa ports`), and the cable (TX to RX)?";
    match means {
        Means::Nothing => {
            let _ = match who {
                Who::Serves => write!(text, "if {there} runs at the other end, is {cable}"),
                _ => write!(text, "does {there} run at the other end, is {cable}"),
            };
        }
        Means::NoFrames => {
            let _ = match who {
                Who::Probes => write!(
                    text,
                    "Both ends need the same baud=, and 8 bits without parity"
                ),
                _ => write!(
                    text,
                    "run `cepa probe {line}`, and `cepa probe --answer` at the other end"
                ),
            };
        }
        Means::Login => {
            let _ = match who {
                Who::Serves => write!(text, " there: {there}"),
                _ => write!(text, ": {there}"),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(heard: &[&[u8]]) -> Option<Means> {
        let it = Heard::default();
        for bytes in heard {
            it.take(bytes);
        }
        assert!(it.lock().tail.len() <= TAIL);
        it.means()
    }

    /// What an earlier link has left in a line is none of a person's business; what a board prints is.
    #[test]
    fn before_the_first_frame_only_text_is_shown() {
        for (heard, shown) in [
            (
                &b"\x01\x9a\xc3\x00\x7e\x02\x00\x17\xd1\x99\xf3\x7e"[..],
                &b""[..],
            ),
            (b"U-Boot 2026.01\r\n=> ", b"U-Boot 2026.01\r\n=> "),
            (b"root@board:~# ls ~/a", b"root@board:~# ls ~/a"),
            (b"\x7e\x02\x00\x17\xd1\x7elogin: ", b"login: "),
            (b"\x00U-Boot\r\n", b"\x00U-Boot\r\n"),
            ("Größe\n".as_bytes(), "Größe\n".as_bytes()),
            (b"\xc0\xc0\xc0", b""),
        ] {
            assert_eq!(only_text(heard), shown, "{heard:?}");
        }
        let it = Heard::default();
        assert_eq!(*it.to_show(b"\x02\x00\x17"), b""[..]);
        it.lock().frames = 1;
        assert_eq!(*it.to_show(b"\x02\x00\x17"), b"\x02\x00\x17"[..]);
    }

    #[test]
    fn a_prompt_is_told_from_noise_and_from_nothing() {
        assert_eq!(means(&[]), Some(Means::Nothing));
        assert_eq!(means(&[b"\x80\xff\x00"]), Some(Means::NoFrames));
        assert_eq!(
            means(&[b"Debian GNU/Linux 13 board ttyS0\r\n"]),
            Some(Means::NoFrames)
        );
        assert_eq!(means(&[b"\r\nboard log", b"in: "]), Some(Means::Login));
        assert_eq!(means(&[b"Password: "]), Some(Means::Login));
        assert_eq!(means(&[b"root@board:~# "]), Some(Means::Login));
        assert_eq!(means(&[b"U-Boot\r\n=> "]), Some(Means::Login));
        assert_eq!(means(&[&[0x55; 5000]]), Some(Means::NoFrames));
    }
}
