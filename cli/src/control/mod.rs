//! The control socket of a long-running command: a Unix socket for its owner alone (mode 0600), where other commands of the same
//! user ask what it does and tell it what to do.
//!
//! ```text
//! asks, one line of JSON                            is answered by lines of JSON, and then the end
//! {"status":{}}                                     what there is now
//! {"status":{"every_ms":1000}}                      the same again and again, as long as who asks stays
//! {"invite":{"name":…,"minutes":…}}                 an invitation, as long as who asks stays
//! {"reload":{}}                                     what has changed, or why nothing has
//! nothing, for a moment or with its end             what there is now, in the first form of `cepa mesh status`
//! ```
//!
//! An error is `{"error":…,"code":…}`, with the exit code that it means. Who asks is of this machine and of the same user, and so may do
//! whatever this process may; the bounds here are against its mistakes: a line has its longest length, a reader its time, and there are so
//! many at once.
//!
//! | file | holds |
//! | --- | --- |
//! | `ask.rs` | the other end: a command that asks |
//! | `look.rs` | what there is, as a document |
//! | `rates.rs` | what passes in a second |
//! | `sessions.rs` | a command that makes its sessions one after the other |

mod ask;
mod look;
mod rates;
mod sessions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cepa::protocols::relay::Relay;
use cepa::transports::{self, Endpoint, Stream, Target};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::exit::{Code, Failure, say};
use crate::fleet::Member;
use crate::log::{OURS, say_once_a_minute};
use crate::mesh_node::Mesh;

pub(crate) use ask::Asked;
pub(crate) use look::{Held, Look, seen_at};
pub(crate) use sessions::{OfSessions, Sessions};

use look::{FOR_OWNER, FOR_PEER, Form, count, document, document_for_peer};
use rates::Rates;

/// Time for a reader to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time to ask for something: it is sent at once.
const ASKING: Duration = Duration::from_millis(300);
/// Longest line that asks, in bytes.
const MOST_ASKED: u64 = 4096;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(500);
/// Who may ask at once: some watch for as long as they run.
const AT_ONCE: usize = 32;
/// How long what passes is counted for a rate, where nobody has looked before.
const COUNTED: Duration = Duration::from_millis(250);
/// How often somebody may look.
const OFTEN: Duration = Duration::from_millis(100);

/// A command as its control socket knows it.
pub(crate) trait Daemon: Send + Sync + 'static {
    /// What there is now.
    fn look(&self) -> Look;

    /// Invites somebody, for as long as who asks stays.
    fn invite<'a>(&'a self, _asked: &'a Value, stream: BufReader<Stream>) -> BoxFuture<'a, ()> {
        let why = "that command invites nobody by its control socket; run `cepa serve --invite NAME`, or a node";
        Box::pin(refuse(stream, Failure::new(Code::Refused, why)))
    }

    /// Reads its configuration again, and says what came of it.
    fn reload(&self) -> BoxFuture<'_, Result<Value, Failure>> {
        let why = "that command has no configuration file: its command line says all, so start it anew to change something";
        Box::pin(std::future::ready(Err(Failure::new(Code::Refused, why))))
    }
}

/// A command whose node is all there is to it.
pub(crate) struct OfNode {
    command: &'static str,
    since: Instant,
    mesh: Mesh,
    relay: Option<Relay>,
    fleet: Option<Arc<Member>>,
}

impl OfNode {
    pub(crate) fn new(command: &'static str, since: Instant, mesh: &Mesh) -> Self {
        Self {
            command,
            since,
            mesh: mesh.clone(),
            relay: None,
            fleet: None,
        }
    }

    /// That is a relay, too.
    pub(crate) fn with_relay(self, relay: Option<Relay>) -> Self {
        Self { relay, ..self }
    }

    /// That is one of a fleet.
    pub(crate) fn with_fleet(self, fleet: Option<Arc<Member>>) -> Self {
        Self { fleet, ..self }
    }
}

impl Daemon for OfNode {
    fn look(&self) -> Look {
        let look = Look::at(self.command, self.since, &self.mesh, self.relay.as_ref());
        Look {
            fleet: self.fleet.as_ref().map(|it| it.look()),
            ..look
        }
    }
}

/// Open until it is closed or dropped.
pub(crate) struct Control {
    serving: JoinHandle<()>,
}

impl Control {
    /// The socket's file is gone when this returns.
    pub(crate) async fn close(mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    pub(crate) async fn open(path: &Path, daemon: Arc<dyn Daemon>) -> Result<Self, Failure> {
        let at = address(path)?;
        let mut listener = transports::listen(&at).await?;
        let serving = tokio::spawn(async move {
            // Ends with this task.
            let mut asking = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = asking.join_next() => continue,
                };
                match accepted {
                    Ok(Some(stream)) if !is_ours(stream.peer_user(), own_user()) => {
                        let kind = "the control socket: somebody of another user was turned away";
                        say_once_a_minute(OURS, kind, kind);
                    }
                    Ok(Some(stream)) => {
                        let daemon = Arc::clone(&daemon);
                        let room = asking.len() < AT_ONCE;
                        asking.spawn(async move {
                            let mut stream = BufReader::new(stream);
                            // Read in any case: who has not been read may not get the answer either.
                            let asked = asked(&mut stream).await;
                            if room {
                                answer(&*daemon, asked, stream).await;
                            } else {
                                let why =
                                    "too many ask at that control socket at once; end one of them";
                                refuse(stream, Failure::new(Code::Refused, why)).await;
                            }
                        });
                    }
                    Ok(None) => return,
                    Err(e) => {
                        say(e);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok(Self { serving })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Where a control socket is, as an address.
pub(crate) fn address(path: &Path) -> Result<Endpoint, Failure> {
    let target = Target::Unix {
        path: path.to_owned(),
        settings: transports::endpoint::UnixSettings::default(),
    };
    let unusable = |why| format!("the socket {}: {why}", path.display());
    Endpoint::new(&[], target).map_err(|e| Failure::new(Code::Usage, unusable(e)))
}

pub(crate) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether who has connected may ask: the same user, or who may do everything. Where the system does not tell, the mode of the socket has
/// decided.
pub(crate) fn is_ours(theirs: Option<u32>, own: u32) -> bool {
    theirs.is_none_or(|theirs| theirs == own || theirs == 0)
}

async fn answer(daemon: &dyn Daemon, asked: Option<Value>, mut stream: BufReader<Stream>) {
    if let Some(invite) = asked.as_ref().and_then(|asked| asked.get("invite")) {
        return daemon.invite(invite, stream).await;
    }
    if asked.as_ref().is_some_and(|it| it.get("reload").is_some()) {
        return match daemon.reload().await {
            Ok(done) => {
                write(&mut stream, &done, true).await;
            }
            Err(failure) => refuse(stream, failure).await,
        };
    }
    let Some(asked) = asked else {
        let status = document(
            &daemon.look(),
            &mut Rates::default(),
            Form::First,
            FOR_OWNER,
        );
        write(&mut stream, &status, true).await;
        return;
    };
    let Some(wanted) = asked.get("status") else {
        let why = "that command does not know this request; update it";
        return refuse(stream, Failure::new(Code::Refused, why)).await;
    };
    let mut rates = Rates::default();
    let look = daemon.look();
    let passes = !look.sessions.is_empty();
    count(&look, &mut rates, FOR_OWNER);
    drop(look);
    if passes {
        tokio::time::sleep(COUNTED).await;
    }
    let every = wanted["every_ms"].as_u64().map(Duration::from_millis);
    loop {
        let status = document(&daemon.look(), &mut rates, Form::Whole, FOR_OWNER);
        if !write(&mut stream, &status, every.is_none()).await {
            return;
        }
        let Some(every) = every else { return };
        // There is nothing more to say; an end is somebody who leaves.
        let stays = async { while matches!(stream.read(&mut [0; 64]).await, Ok(n) if n > 0) {} };
        if timeout(every.max(OFTEN), stays).await.is_ok() {
            return;
        }
    }
}

/// What a peer is told of what it may see.
pub(crate) async fn for_peer(look: impl Fn() -> Look) -> Value {
    let mut rates = Rates::default();
    count(&look(), &mut rates, FOR_PEER);
    tokio::time::sleep(COUNTED).await;
    document_for_peer(&look(), &mut rates)
}

/// What is asked for in a first line, if anything is.
async fn asked(stream: &mut BufReader<Stream>) -> Option<Value> {
    let mut line = Vec::new();
    let mut asking = stream.take(MOST_ASKED);
    let _ = timeout(ASKING, asking.read_until(b'\n', &mut line)).await;
    serde_json::from_slice(&line).ok()
}

/// A line of an answer; whether somebody has taken it.
async fn write(stream: &mut BufReader<Stream>, line: &Value, last: bool) -> bool {
    let written = timeout(PATIENCE, async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        stream.flush().await?;
        if last {
            stream.shutdown().await?;
        }
        std::io::Result::Ok(())
    });
    matches!(written.await, Ok(Ok(())))
}

async fn refuse(mut stream: BufReader<Stream>, failure: Failure) {
    let answer = json!({ "error": failure.to_string(), "code": failure.status() });
    write(&mut stream, &answer, true).await;
}

#[cfg(test)]
mod tests {
    use cepa::identity::PeerId;
    use tokio::io::duplex;

    use super::*;

    /// A command without sessions.
    struct Idle;

    impl Daemon for Idle {
        fn look(&self) -> Look {
            Look {
                command: "idle",
                since: Instant::now(),
                own: PeerId::from_bytes([7; 32]),
                listening: Vec::new(),
                services: Vec::new(),
                registered: Vec::new(),
                sessions: Vec::new(),
                relay: None,
                carrier: None,
                fleet: None,
                shares: Vec::new(),
            }
        }
    }

    /// The time passes by itself where nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn who_watches_and_takes_nothing_is_cut_off_and_who_reads_is_not() {
        let watch = || Some(json!({ "status": { "every_ms": 1 } }));
        let begun = Instant::now();
        let (_near, far) = duplex(16);
        answer(&Idle, watch(), BufReader::new(Stream::from(far))).await;
        assert_eq!(begun.elapsed(), PATIENCE);

        let (near, far) = duplex(1 << 10);
        let watching = tokio::spawn(async move {
            answer(&Idle, watch(), BufReader::new(Stream::from(far))).await;
        });
        let mut lines = BufReader::new(near).lines();
        let begun = Instant::now();
        for _ in 0..100 {
            let line = lines.next_line().await.unwrap().unwrap();
            let status: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(status["command"], "idle");
        }
        // No more often than it may.
        assert!(begun.elapsed() >= OFTEN * 99);
        drop(lines);
        watching.await.unwrap();
    }

    #[test]
    fn the_same_user_may_ask_and_the_one_who_may_everything() {
        assert!(is_ours(Some(1000), 1000));
        assert!(is_ours(Some(0), 1000));
        assert!(is_ours(None, 1000));
        assert!(!is_ours(Some(1001), 1000));
        assert!(!is_ours(Some(1000), 0));
    }

    #[test]
    fn a_path_stands_for_itself_whatever_is_in_it() {
        for path in ["a.sock", "/run/a,mode=0666", "/run/a?b%20", "x y"] {
            let at = address(Path::new(path)).unwrap();
            let Target::Unix { path: found, .. } = at.target() else {
                panic!("{at}")
            };
            assert_eq!(found, Path::new(path));
        }
        assert_eq!(address(Path::new("")).unwrap_err().code, Code::Usage);
    }
}
