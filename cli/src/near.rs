//! The near side of a service: what was opened for one substream, joined to it until both have ended, and ended as the
//! other side did: `splice_table.txt` has every case.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cepa::mux::ReceivePool;
use cepa::mux::Substream;
use cepa::session::Session;
use cepa::transports::{Endpoint, Stream, Terminal, TransportError, dial_for_peer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::child::Watched;
use crate::console::framed::Outbox;
use crate::console::served;
use crate::console::wire::Message;
use crate::join::{Join, Leaves, Step};
use crate::log::say_of;
use crate::splice::{Ended, Told, verdict};
use crate::told::{Says, says};

/// How long the output of a command that has exited is waited for: what it left behind may hold the pipe for ever.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// How long the end of a command's output is held back for its status, while its peer has no other way to read that and may still send: a
/// command may close its output and go on taking input.
pub(crate) const HELD: Duration = Duration::from_secs(10);

/// A reset waits until what is in front of it has left, as long as some of it leaves within this time: a slow reader is told of room seldom.
const STALLED: Duration = Duration::from_secs(300);

/// How long a command on a terminal may take to end once that was hung up; then it is killed.
const HANG_UP: Duration = Duration::from_secs(10);

/// The substream that a stream stands on.
pub(crate) type Wire<F> = fn(&mut F) -> &mut Substream;

/// What was opened for a substream.
pub(crate) struct Near {
    // Dropped before the stream: a command is killed before its pipes close.
    child: Option<Watched>,
    pub(crate) stream: Stream,
    outbox: Option<Outbox>,
    /// Of the service.
    name: String,
    /// The command has written a line to its standard error, which waits in the outbox.
    line: Arc<Notify>,
    session: Session,
    /// What the peer may make this end hold.
    memory: ReceivePool,
}

impl Near {
    /// Opens an address for who is at the other end of the session. Messages for it go to `outbox`, where it wants any.
    pub(crate) async fn open(
        name: &str,
        to: &Endpoint,
        terminal: &Terminal,
        (session, memory): &(Session, ReceivePool),
        outbox: Option<Outbox>,
    ) -> Result<Self, TransportError> {
        let mut stream = dial_for_peer(to, terminal).await?;
        let peer = session.peer().id();
        for remark in stream.remarks() {
            say_of(peer, format_args!("service {name}: {remark}"));
        }
        let line = Arc::new(Notify::new());
        let child = stream.take_child().map(|child| {
            let (outbox, line) = (outbox.clone(), Arc::clone(&line));
            let pass_on = move |text: &str| {
                if let Some(outbox) = &outbox {
                    outbox.push(Message::Stderr(text.to_owned()));
                    line.notify_one();
                }
                outbox.as_ref().map(Outbox::room)
            };
            Watched::serving(child, name.to_owned(), peer, Box::new(pass_on))
        });
        // A TCP service must not take what has come of a lost substream for all there is.
        stream.cut_when_dropped(true);
        Ok(Self {
            child,
            stream,
            outbox,
            name: name.to_owned(),
            line,
            session: session.clone(),
            memory: memory.clone(),
        })
    }

    /// Joins it to the substream until both have ended, and ends it as that did. `Err` is for the log.
    ///
    /// # Cancel safety
    /// Dropping the future cuts both sides.
    pub(crate) async fn serve<F>(
        mut self,
        to: &Endpoint,
        mut far: F,
        wire: Wire<F>,
    ) -> Result<(), String>
    where
        F: AsyncRead + AsyncWrite + Leaves + Unpin,
    {
        let on_terminal = self.stream.control().is_some();
        let failed = match self.join(&mut far).await {
            Ok(ended) => {
                let told = verdict(&ended).near;
                // Of a whole input a reset would take back what is on its way.
                self.stream.cut_when_dropped(told == Told::Cut);
                match ended {
                    _ if told == Told::End => {
                        // What is queued still leaves; input that goes on coming is answered by a reset.
                        drop(far);
                        return Ok(());
                    }
                    Ended::Near(e) => format!("{to}: {e}"),
                    // The peer has reset its substream or is gone; its session tells of that.
                    _ => {
                        if on_terminal {
                            self.hang_up().await;
                        } else if let Some(child) = &self.child {
                            child.kill().await;
                        }
                        return Ok(());
                    }
                }
            }
            Err(failed) => failed,
        };
        leave(&mut far, wire).await;
        Err(failed)
    }

    /// Sends a message to who wants any, before all that comes.
    pub(crate) fn tell(&self, message: Message) {
        if let Some(outbox) = &self.outbox {
            outbox.push(message);
            self.line.notify_one();
        }
    }

    /// Closes a terminal, and gives the command that had it a moment to go by itself.
    pub(crate) async fn hang_up(self) {
        let Self { child, stream, .. } = self;
        drop(stream);
        if let Some(child) = child {
            let _ = timeout(HANG_UP, child.ended()).await;
        }
    }

    /// Carries the join to its end, and minds what the streams do not tell: that the command on the near
    /// side has exited, and that the session under the far side is lost. `Err`: the command failed, and its peer reads that by no
    /// message.
    pub(crate) async fn join<F>(&mut self, far: &mut F) -> Result<Ended, String>
    where
        F: AsyncRead + AsyncWrite + Leaves + Unpin,
    {
        let child = self.child.as_ref();
        let exited = async {
            match child {
                Some(child) => child.ended().await,
                None => pending().await,
            }
        };
        tokio::pin!(exited);
        let mut join = Join::new(&mut self.stream, far)
            .counted(&self.memory)
            .hold_near_end();
        let (mut exit, mut drained_by) = (None, Instant::now());
        // Since when its end is held back, and whether that is for too long.
        let (mut held, mut overdue) = (None::<Instant>, false);
        let (mut lost, mut drained) = (false, false);
        loop {
            tokio::select! {
                step = join.step() => match step {
                    Step::Over(ended) => return Ok(ended),
                    // It is not held.
                    Step::FarEnded => join.pass_far_end_on(),
                    Step::NearEnded => {
                        held = Some(Instant::now());
                        if let Some(outbox) = &self.outbox {
                            outbox.push(Message::OutputEnded);
                            join.flush_far();
                        }
                    }
                },
                end = &mut exited, if exit.is_none() => {
                    exit = Some(end);
                    drained_by = Instant::now() + DRAIN;
                    join.near_is_gone();
                }
                () = sleep_until(drained_by), if exit.is_some() && held.is_none() && !drained => {
                    drained = true;
                    join.near_has_ended();
                }
                () = self.line.notified() => join.flush_far(),
                () = sleep_until(held.unwrap_or_else(Instant::now) + HELD), if held.is_some() && !overdue => overdue = true,
                _ = self.session.closed(), if !lost => {
                    lost = true;
                    join.far_is_gone();
                }
            }
            if held.is_none() {
                continue;
            }
            match (child, &exit) {
                // It goes on, and so does the peer.
                (Some(_), None) if overdue && self.outbox.is_none() && join.far_may_send() => {}
                // How it ended is waited for.
                (Some(_), None) => continue,
                _ => {}
            }
            let status = exit.as_ref().map(|end| served::ended(end.exit));
            match (says(status, self.outbox.is_some()), &exit) {
                (Says::Reset, Some(end)) => return Err(end.to_string()),
                (Says::Reset | Says::End, _) => {}
                (Says::Status(status), exit) => {
                    if let Some(outbox) = &self.outbox {
                        outbox.push(Message::Ended(status));
                    }
                    if let Some(end) = exit.as_ref().filter(|end| end.failed) {
                        let peer = self.session.peer().id();
                        say_of(
                            peer,
                            format_args!("service {} for {}…: {end}", self.name, peer.short()),
                        );
                    }
                }
            }
            held = None;
            join.pass_end_on();
        }
    }
}

/// Waits until everything that was written has left, or none of it does any more: a reset throws away what is in front of it.
async fn leave<F: AsyncWrite + Unpin>(far: &mut F, wire: Wire<F>) {
    loop {
        let before = wire(far).stats().data_out;
        match timeout(STALLED, far.flush()).await {
            Ok(_) => break,
            Err(_) if wire(far).stats().data_out > before => {}
            Err(_) => return,
        }
    }
    let _ = wire(far).drained(Some(STALLED)).await;
}
