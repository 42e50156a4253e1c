//! The near side of a service: what was opened for one substream, joined to it until both have ended, and ended as the
//! other side did: `splice_table.txt` has every case.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use cepa::mux::ReceivePool;
use cepa::mux::Substream;
use cepa::session::Session;
use cepa::transports::{Endpoint, Stream, Terminal, TransportError, dial_for_peer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::child::{self, Watched};
use crate::console::framed::Outbox;
use crate::console::served;
use crate::console::watched::{Asked, Source, Tapped};
use crate::console::wire::Message;
use crate::held::{Held, Passes};
use crate::limits::{HANG_UP, LINGER, STALLED};
use crate::log::say_of;
use crate::say::Line;
use crate::service_end::{Says, broke_off, says};
use crate::splice::{Join, Leaves, Step};
use crate::splice_end::{Closing, Ended, verdict};

/// The substream that a stream stands on.
pub(crate) type Wire<F> = fn(&mut F) -> &mut Substream;

/// What was opened for a substream.
pub(crate) struct Near {
    // Dropped before the stream: a command is killed before its pipes close.
    child: Option<Watched>,
    pub(crate) stream: Stream,
    outbox: Option<Outbox>,
    /// What others see of it.
    source: Option<Source>,
    /// Somebody sits at the other end, and has nothing more to say when the service has ended.
    at_console: bool,
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
            let line = Line::from(format_args!("service {name}: {remark}"));
            say_of(peer, line.with("service", name));
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
        let near = Self::of(name, stream, &(session.clone(), memory.clone()));
        Ok(Self {
            child,
            outbox,
            line,
            ..near
        })
    }

    /// What is there already for who is at the other end of the session; no command.
    pub(crate) fn of(
        name: &str,
        mut stream: Stream,
        (session, memory): &(Session, ReceivePool),
    ) -> Self {
        // A TCP service must not take what has come of a lost substream for all there is.
        stream.cut_when_dropped(true);
        Self {
            child: None,
            stream,
            outbox: None,
            source: None,
            at_console: false,
            name: name.to_owned(),
            line: Arc::default(),
            session: session.clone(),
            memory: memory.clone(),
        }
    }

    /// Others can watch it.
    pub(crate) fn watched(mut self, source: Option<Source>) -> Self {
        self.source = source;
        self
    }

    /// It is for a console.
    pub(crate) fn at_console(mut self) -> Self {
        self.at_console = true;
        self
    }

    /// Joins it to the substream until both have ended, and ends it as that did. `Err` is for the log.
    ///
    /// # Cancel safety
    /// Dropping the future cuts both sides.
    pub(crate) async fn serve<F>(
        mut self: Box<Self>,
        to: &Endpoint,
        mut far: Box<F>,
        wire: Wire<F>,
    ) -> Result<(), String>
    where
        F: AsyncRead + AsyncWrite + Leaves + Unpin,
    {
        let (joined, unreported) = self.join(&mut *far).await;
        let closing = match &joined {
            Ok(ended) => verdict(ended).near,
            // It has exited.
            Err(_) => Closing::End,
        };
        let last_words = self.outbox.take().filter(|_| self.at_console);
        let exit = self.end(closing).await;
        match joined {
            Ok(Ended::Near(e)) => {
                if let Some(outbox) = &last_words {
                    outbox.push(Message::Ended(broke_off()));
                }
                leave(&mut *far, wire, last_words.is_some()).await;
                Err(format!("{to}: {e}"))
            }
            Err(failed) => {
                leave(&mut *far, wire, false).await;
                Err(failed)
            }
            Ok(_) if closing == Closing::End => {
                // What is queued still leaves, however slowly it is read; input that goes on coming is answered by a reset.
                let _ = wire(&mut *far).drained(None).await;
                match exit.filter(|end| unreported && end.failed) {
                    Some(end) => {
                        wire(&mut *far).reset(0);
                        Err(end.to_string())
                    }
                    None => Ok(()),
                }
            }
            // The peer has reset its substream or is gone; its session tells of that.
            Ok(_) => Ok(()),
        }
    }

    /// Sends a message to who wants any, before all that comes.
    pub(crate) fn notify(&self, message: Message) {
        if let Some(outbox) = &self.outbox {
            outbox.push(message);
            self.line.notify_one();
        }
    }

    /// Ends it as it is told; gives how its command ended, where that is known.
    async fn end(self, closing: Closing) -> Option<child::End> {
        let Self {
            child,
            mut stream,
            session,
            ..
        } = self;
        // Of a whole input a reset would take back what is on its way.
        stream.cut_when_dropped(closing == Closing::Cut);
        let child = child?;
        if stream.control().is_some() {
            // Nothing that belongs to the terminal may stay, but for a moment to go by itself.
            drop(stream);
            return timeout(HANG_UP, child.ended()).await.ok();
        }
        match closing {
            // Killed before its pipes close.
            Closing::Cut => {
                child.kill().await;
                None
            }
            Closing::Unwanted => {
                drop(stream);
                timeout(LINGER, child.ended()).await.ok()
            }
            // It may not have taken all of its input yet.
            Closing::End => {
                drop(stream);
                let too_long = async {
                    session.closed().await;
                    sleep(LINGER).await;
                };
                tokio::select! {
                    end = child.ended() => Some(end),
                    () = too_long => None,
                }
            }
        }
    }

    /// Carries the join to its end, and minds what the streams do not tell: that the command on the near side has exited, and that the
    /// session under the far side is lost. `Err`: the command failed, and its peer reads that by no message. And whether the end of
    /// its output was passed on before it was known how it exits.
    async fn join<F>(&mut self, far: &mut F) -> (Result<Ended, String>, bool)
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
        let source = self.source.as_ref();
        let told = || async {
            let asked = poll_fn(|cx| match source {
                Some(source) => source.poll_asked(cx),
                None => Poll::Pending,
            });
            asked.await
        };
        let mut near = Tapped {
            stream: &mut self.stream,
            source,
        };
        let mut join = Join::new(&mut near, far)
            .counted(&self.memory)
            .hold_near_end();
        let mut held = Held::default();
        let (mut lost, mut unreported) = (false, false);
        // What is no command may end its side and go on taking: where a message is all that its peer reads of the end, that waits.
        let takes_on = child.is_none() && self.outbox.is_some() && !self.at_console;
        loop {
            let until_taken = takes_on && held.is_held();
            tokio::select! {
                step = join.step_until(until_taken) => match step {
                    Some(Step::Over(ended)) => return (Ok(ended), unreported),
                    // It is not held.
                    Some(Step::FarEnded) => join.pass_far_end_on(),
                    Some(Step::NearEnded) => {
                        held.ended();
                        if let Some(outbox) = &self.outbox {
                            outbox.push(Message::OutputEnded);
                            join.flush_far();
                        }
                    }
                    None => {}
                },
                end = &mut exited, if !held.has_exited() => {
                    held.exited(end);
                    join.near_is_gone();
                }
                () = held.due() => if held.is_drained() {
                    join.near_has_ended();
                },
                asked = told() => if let (Asked::Tell(line), Some(outbox)) = (asked, &self.outbox) {
                    outbox.push(Message::Stderr(line));
                    join.flush_far();
                },
                () = self.line.notified() => join.flush_far(),
                _ = self.session.closed(), if !lost => {
                    lost = true;
                    join.far_is_gone();
                }
            }
            let exit = match child {
                None if !held.is_held() || takes_on && join.near_takes_more() => continue,
                None => {
                    held.pass();
                    None
                }
                Some(_) => match held.passes(self.outbox.is_none() && join.far_may_send()) {
                    Passes::No => continue,
                    Passes::Early => {
                        unreported = true;
                        None
                    }
                    Passes::Exited(end) => Some(end),
                },
            };
            let status = exit.map(|end| served::ended(end.exit));
            match (says(status, self.outbox.is_some()), exit) {
                (Says::Reset, Some(end)) => return (Err(end.to_string()), unreported),
                (Says::Reset | Says::End, _) => {}
                (Says::Status(status), exit) => {
                    if let Some(outbox) = &self.outbox {
                        outbox.push(Message::Ended(status));
                    }
                    if let Some(end) = exit.filter(|end| end.failed) {
                        let peer = self.session.peer().id();
                        let (name, short) = (&self.name, peer.short());
                        let line = Line::from(format_args!("service {name} for {short}…: {end}"));
                        say_of(peer, line.with("service", name));
                    }
                }
            }
            join.pass_end_on();
        }
    }
}

/// Waits until everything that was written has left, behind it its end where `ends`, or none of it does any more: a reset throws
/// away what is in front of it.
pub(crate) async fn leave<F: AsyncWrite + Unpin>(far: &mut F, wire: Wire<F>, ends: bool) {
    loop {
        let before = wire(far).stats().data_out;
        let left = async {
            if ends {
                far.shutdown().await
            } else {
                far.flush().await
            }
        };
        match timeout(STALLED, left).await {
            Ok(_) => break,
            Err(_) if wire(far).stats().data_out > before => {}
            Err(_) => return,
        }
    }
    let _ = wire(far).drained(Some(STALLED)).await;
}

#[cfg(test)]
mod tests {
    use cepa::Side;
    use cepa::identity::{AcceptAny, Identity, KeyKind};
    use tokio::io::AsyncReadExt as _;

    use std::time::Duration;

    use super::*;
    use crate::stack;

    /// The two ends of a session over a pipe.
    async fn sessions() -> (Session, Session) {
        let config = || {
            stack::of(
                &Identity::generate(KeyKind::Ed25519).unwrap(),
                Arc::new(AcceptAny),
            )
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (one, other) = (config(), config());
        let (near, far) = tokio::join!(
            Session::handshake(near, &[], Side::Client, &one),
            Session::handshake(far, &[], Side::Server, &other)
        );
        (near.unwrap(), far.unwrap())
    }

    /// `cepa connect h journal | less`, with ten minutes at a page.
    #[tokio::test(start_paused = true)]
    async fn a_reader_may_pause_before_the_rest_of_what_has_ended() {
        let (client, server) = sessions().await;
        let (far, accepted) = tokio::join!(client.open("x"), async {
            server.accept().await.unwrap().accept().await
        });
        let mut far = far.unwrap();
        let (stream, mut service) = tokio::io::duplex(1 << 20);
        let near = Box::new(Near {
            child: None,
            stream: Stream::from(stream),
            outbox: None,
            source: None,
            at_console: false,
            name: "x".to_owned(),
            line: Arc::default(),
            session: server.clone(),
            memory: ReceivePool::new(1 << 24),
        });
        let serving = tokio::spawn(async move {
            let to = "tcp:127.0.0.1:1".parse().unwrap();
            near.serve(&to, Box::new(accepted.unwrap()), |far| far.wire_mut())
                .await
        });
        // More than the first window, and no more than the rest that a substream takes.
        let data: Vec<u8> = (0..320_000_u32).map(|i| (i % 251) as u8).collect();
        service.write_all(&data).await.unwrap();
        service.shutdown().await.unwrap();
        far.shutdown().await.unwrap();
        sleep(Duration::from_secs(600)).await;
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        serving.await.unwrap().unwrap();
    }
}
