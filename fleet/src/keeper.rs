//! Keeps a fleet's part in its etcd: a task that has one connection at a time, and never ends by itself.
//!
//! ```text
//!             +----------------------- any error: a pause, the next endpoint -----------------+
//!             v                                                                                |
//!   connect --+--> the lease we had, or another --> read all, or go on where the watch was --> serve
//!                        |                               ^                                     |
//!                        +-- lost: all is entered again  +------- compacted: read all ---------+
//! ```
//!
//! While it serves, three things go on side by side: the lease is kept alive, changes are watched, and what has changed here is written, one
//! batch at a time. None of them has a queue: what waits is what the engine of [`Fleet`] holds, and an etcd that tells much waits for
//! us. Whatever goes wrong ends all three, and they begin anew with the lease and the revision they had, so that a moment without etcd costs
//! no more than what has changed meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cepa::protocols::relay::fleet::{Batch, Change, Fleet};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::FleetAddress;
use crate::etcd::{self, Client, EtcdError, MOST_OPS, MOST_WRITTEN, Options, Watch, Write, end_of};
use crate::health::{Health, Listener, StoreEvent, Watcher};

/// How long a lease lasts without a sign of life: so long a relay that was killed is believed to be there. More would keep
/// peers waiting, and less would lose the entries of a relay whose etcd elects a leader (up to some seconds).
pub const LEASE: Duration = Duration::from_secs(10);
/// How often it is kept alive: two may be lost.
const BEAT: Duration = Duration::from_secs(3);
/// The first pause after a failure, and the longest: then an etcd that comes back has all its relays within some seconds, and they
/// do not come at once.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);
/// How often who waits for the first connection looks.
const LOOK: Duration = Duration::from_millis(20);
/// Who has failed once is not waited for long to say who it is.
const GLANCE: Duration = Duration::from_secs(2);
/// Reasons that are said between two times that all is well.
const MOST_SAID: usize = 16;
/// From one attempt to take leave to the next, at another endpoint.
const NEXT_LEAVE: Duration = Duration::from_millis(300);
/// Time for leaving in order.
const LEAVING: Duration = Duration::from_secs(3);

/// The task that keeps a fleet's part in its etcd. It ends when this is dropped, without taking leave.
pub struct Keeper {
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
    watcher: Watcher,
}

/// Whether an etcd can be used as it is meant: asked before a relay starts, for what an operator has to mend. All endpoints are asked at
/// once, within [`Options::patience`], and one that can be used is enough. An etcd that is away is no error here, and the reason is returned.
///
/// # Errors
/// TLS, the user, the password or a permission is wrong.
pub async fn check(
    address: &FleetAddress,
    options: &Options,
) -> Result<Option<EtcdError>, EtcdError> {
    let prefix = prefix(address);
    let ask = async |endpoint: &String| {
        let tried = async {
            let client = Client::connect(endpoint, options).await?;
            client.page(&prefix, &end_of(&prefix), 0).await.map(drop)
        };
        let tried = timeout(options.patience, tried).await;
        match tried.unwrap_or(Err(EtcdError::Slow(options.patience.as_secs()))) {
            Err(
                vague @ (EtcdError::NotReady(_) | EtcdError::Malformed(_) | EtcdError::Slow(_)),
            ) => {
                let patience = options.patience.min(GLANCE);
                let seen = etcd::look(endpoint, options.tls.as_ref(), patience).await;
                Err(seen.unwrap_or(vague))
            }
            other => other,
        }
    };
    let mut asked: FuturesUnordered<_> = address.endpoints().iter().map(ask).collect();
    let mut worst: Option<EtcdError> = None;
    while let Some(answer) = asked.next().await {
        let Err(error) = answer else {
            return Ok(None);
        };
        if worst.as_ref().is_none_or(|it| weight(it) < weight(&error)) {
            worst = Some(error);
        }
    }
    match worst {
        Some(error) if error.is_configuration() => Err(error),
        worst => Ok(worst),
    }
}

/// Of the reasons why none of several can be used, which one says most: what an etcd says, what is there in place of one, silence.
fn weight(error: &EtcdError) -> u8 {
    match error {
        EtcdError::Login(_) | EtcdError::NoLogin => 6,
        EtcdError::Denied(_) => 5,
        EtcdError::Tls { .. } => 3,
        EtcdError::Malformed(_) => 2,
        EtcdError::Slow(_) => 1,
        EtcdError::Unreachable { .. } => 0,
        _ => 4,
    }
}

fn prefix(address: &FleetAddress) -> Vec<u8> {
    format!("{}/", address.prefix()).into_bytes()
}

impl Keeper {
    /// Begins at once, and goes on until [`leave`](Self::leave).
    #[must_use]
    pub fn start(
        fleet: Fleet,
        address: &FleetAddress,
        options: Options,
        listener: Listener,
    ) -> Self {
        let stop = CancellationToken::new();
        let watcher = Watcher::new(listener);
        // Nothing is known of the others yet.
        fleet.set_reachable(false);
        let keeping = Keeping {
            fleet,
            endpoints: address.endpoints().to_vec(),
            prefix: prefix(address),
            options,
            watcher: watcher.clone(),
            lease: None,
            next: None,
            flight: AtomicU64::new(0),
        };
        Self {
            task: Some(tokio::spawn(keeping.run(stop.clone()))),
            stop,
            watcher,
        }
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Health {
        self.watcher.health()
    }

    /// Waits until a connection has come about, for so long at most; whether one has.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ready(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.health().connections == 0 {
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Ends the lease: all that this relay has entered is gone then. Takes some seconds at most.
    pub async fn leave(mut self) {
        self.stop.cancel();
        if let Some(mut task) = self.task.take()
            && timeout(LEAVING, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Keeping {
    fleet: Fleet,
    endpoints: Vec<String>,
    prefix: Vec<u8>,
    options: Options,
    watcher: Watcher,
    lease: Option<i64>,
    /// The revision from which a watch goes on; none: everything has to be read.
    next: Option<u64>,
    /// The batch that is with etcd; 0 is none.
    flight: AtomicU64,
}

impl Keeping {
    async fn run(mut self, stop: CancellationToken) {
        let mut at = fastrand::usize(..self.endpoints.len().max(1));
        let mut pause = PAUSE;
        let mut said = Vec::new();
        loop {
            let Some(endpoint) = self
                .endpoints
                .get(at % self.endpoints.len().max(1))
                .cloned()
            else {
                return;
            };
            let mut since = None;
            let failed = tokio::select! {
                failed = self.session(&endpoint, &mut since, &mut said) => failed,
                () = stop.cancelled() => {
                    self.land();
                    self.depart(&endpoint).await;
                    return;
                }
            };
            self.land();
            let was_good = since.is_some_and(|since: Instant| since.elapsed() >= GOOD);
            if was_good {
                pause = PAUSE;
            }
            match failed {
                // The connection is no worse for these.
                EtcdError::LeaseLost => self.lose_lease(),
                EtcdError::Compacted => self.next = None,
                _ => {
                    // The watch would tell the same again, also after that was deleted: only what is there now can be read.
                    if matches!(failed, EtcdError::TooLarge(_)) {
                        self.next = None;
                    }
                    at = at.wrapping_add(1);
                    self.report(&failed, &mut said);
                }
            }
            // Half of it, and up to all: relays that lost one etcd at one moment do not come back at one.
            let part = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = sleep(part) => {}
                () = stop.cancelled() => {
                    self.depart(&endpoint).await;
                    return;
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says that there is no etcd, once for each reason.
    fn report(&self, failed: &EtcdError, said: &mut Vec<String>) {
        self.fleet.set_reachable(false);
        let reason = failed.to_string();
        self.watcher.set(|it| {
            if it.endpoint.take().is_some() || it.since.is_none() {
                it.since = Some(Instant::now());
            }
            it.error = Some(reason.clone());
        });
        if !said.contains(&reason) && said.len() < MOST_SAID {
            said.push(reason.clone());
            self.watcher.say(StoreEvent::Away {
                reason,
                is_configuration: failed.is_configuration(),
            });
        }
    }

    /// All that was entered is gone. It may be with all that the store knew, whose revisions begin anew then: so all is read again.
    fn lose_lease(&mut self) {
        (self.lease, self.next) = (None, None);
        self.fleet.lease_lost();
        self.watcher.set(|it| it.lease = None);
        self.watcher.say(StoreEvent::LeaseLost);
    }

    /// Nobody knows any more what has become of what was being written.
    fn land(&self) {
        let batch = self.flight.swap(0, Ordering::Relaxed);
        if batch != 0 {
            self.fleet.failed(batch);
        }
    }

    /// Everything there is to one connection; why it ended.
    async fn session(
        &mut self,
        endpoint: &str,
        since: &mut Option<Instant>,
        said: &mut Vec<String>,
    ) -> EtcdError {
        match self.prepare(endpoint).await {
            Err(error) => error,
            Ok((client, lease, mut changes)) => {
                let mut next = changes.resume_at();
                let arrived = || {
                    *since = Some(Instant::now());
                    said.clear();
                    self.arrive(endpoint);
                };
                let ended = tokio::select! {
                    biased; // so that it has arrived before a watch that tells nonsense ends
                    error = self.tell(&client, lease, arrived) => error,
                    error = self.beat(&client, lease) => error,
                    error = self.follow(&mut changes, &mut next) => error,
                };
                self.next = Some(next);
                ended
            }
        }
    }

    /// All is well, as far as is known.
    fn arrive(&self, endpoint: &str) {
        self.fleet.set_reachable(true);
        let mut first = false;
        self.watcher.set(|it| {
            first = it.connections == 0;
            it.connections += 1;
            it.endpoint = Some(endpoint.to_owned());
            (it.error, it.since) = (None, Some(Instant::now()));
        });
        self.watcher.say(StoreEvent::Ready {
            endpoint: endpoint.to_owned(),
            first,
        });
    }

    /// A connection, the lease, and all that is known there.
    async fn prepare(&mut self, endpoint: &str) -> Result<(Client, i64, Watch), EtcdError> {
        let client = Client::connect(endpoint, &self.options).await?;
        let lease = match self.lease {
            Some(lease) => match client.keep_alive(lease).await {
                Err(EtcdError::LeaseLost) => {
                    self.lose_lease();
                    client.grant(LEASE).await?
                }
                kept => kept.map(|()| lease)?,
            },
            None => client.grant(LEASE).await?,
        };
        self.lease = Some(lease);
        self.watcher.set(|it| {
            (it.lease, it.kept) = (Some(lease), Some(Instant::now()));
        });
        let end = end_of(&self.prefix);
        if let Some(next) = self.next {
            let watch = client.watch(&self.prefix, &end, next).await?;
            return Ok((client, lease, watch));
        }
        // Reading takes long where there is much: the lease lives on meanwhile.
        let revision = tokio::select! {
            revision = self.read(&client) => revision?,
            error = self.beat(&client, lease) => return Err(error),
        };
        let next = revision.saturating_add(1);
        let watch = client.watch(&self.prefix, &end, next).await?;
        self.next = Some(next);
        Ok((client, lease, watch))
    }

    /// Reads everything, page by page as it was at one revision.
    async fn read(&self, client: &Client) -> Result<u64, EtcdError> {
        let (mut from, end) = (self.prefix.clone(), end_of(&self.prefix));
        let mut revision = 0;
        self.fleet.begin_sync();
        loop {
            let page = client.page(&from, &end, revision).await?;
            if revision == 0 {
                revision = page.revision;
            }
            let read = page.entries.len() as u64;
            for entry in &page.entries {
                self.apply(&entry.key, Some(&entry.value), entry.revision);
            }
            self.watcher.set(|it| it.changes += read);
            match page.entries.last() {
                // An etcd that gives the same page again would never end.
                Some(last) if page.more && last.key >= from => {
                    from.clone_from(&last.key);
                    from.push(0);
                }
                Some(_) if page.more => {
                    return Err(EtcdError::Malformed("keys out of their order".to_owned()));
                }
                _ => break,
            }
        }
        self.fleet.end_sync(revision);
        self.watcher.set(|it| it.syncs += 1);
        Ok(revision)
    }

    /// Keeps the lease alive; why that failed.
    async fn beat(&self, client: &Client, lease: i64) -> EtcdError {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        loop {
            beats.tick().await;
            if let Err(error) = client.keep_alive(lease).await {
                return error;
            }
            self.watcher.set(|it| it.kept = Some(Instant::now()));
        }
    }

    /// Takes in what changes; why that ended.
    async fn follow(&self, changes: &mut Watch, next: &mut u64) -> EtcdError {
        loop {
            let all = match changes.next().await {
                Ok(all) => all,
                Err(error) => return error,
            };
            let count = all.len() as u64;
            for change in all {
                match change {
                    etcd::Change::Put(entry) => {
                        self.apply(&entry.key, Some(&entry.value), entry.revision);
                    }
                    etcd::Change::Deleted { key, revision } => self.apply(&key, None, revision),
                }
            }
            *next = changes.resume_at();
            self.watcher.set(|it| it.changes += count);
        }
    }

    fn apply(&self, key: &[u8], value: Option<&[u8]>, revision: u64) {
        let below = key.strip_prefix(&self.prefix[..]).unwrap_or_default();
        // What is no text is no key of a fleet, and is counted as that.
        let key = std::str::from_utf8(below).unwrap_or_default();
        self.fleet.apply(Change {
            key,
            value,
            revision,
        });
    }

    /// Writes what has changed here; why that failed. `arrived` is called once something was written, or where nothing has to be: an
    /// etcd that can only be read (its space is used up, or its user may not write) would else be there and away for ever.
    async fn tell(&self, client: &Client, lease: i64, arrived: impl FnOnce()) -> EtcdError {
        let mut arrived = Some(arrived);
        loop {
            while let Some(batch) = self.fleet.next_batch(MOST_OPS) {
                if let Err(error) = self.write(client, lease, batch).await {
                    return error;
                }
                if let Some(arrived) = arrived.take() {
                    arrived();
                }
            }
            if let Some(arrived) = arrived.take() {
                arrived();
            }
            self.fleet.changed().await;
        }
    }

    async fn write(&self, client: &Client, lease: i64, batch: Batch) -> Result<(), EtcdError> {
        self.flight.store(batch.number, Ordering::Relaxed);
        let count = batch.writes.len() as u64;
        let writes: Vec<_> = batch.writes.into_iter().map(|it| self.placed(it)).collect();
        debug_assert!(writes.iter().map(Write::len).sum::<usize>() <= MOST_WRITTEN);
        let revision = client.write(lease, writes).await?;
        self.flight.store(0, Ordering::Relaxed);
        self.fleet.written(batch.number, revision);
        self.watcher.set(|it| it.writes += count);
        Ok(())
    }

    fn placed(&self, write: cepa::protocols::relay::fleet::Write) -> Write {
        let key = [&self.prefix[..], write.key.as_bytes()].concat();
        match write.value {
            Some(value) => Write::Put { key, value },
            None => Write::Delete { key },
        }
    }

    /// Takes all that was entered back with the lease, in one step of etcd's: at this endpoint, or at any other.
    async fn depart(&mut self, endpoint: &str) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let others = self.endpoints.iter().filter(|it| *it != endpoint);
        let all = std::iter::once(endpoint).chain(others.map(String::as_str));
        let mut attempts: FuturesUnordered<_> = (0_u32..)
            .zip(all)
            .map(async |(n, endpoint)| {
                sleep(NEXT_LEAVE * n.min(5)).await;
                let client = Client::connect(endpoint, &self.options).await?;
                client.revoke(lease).await
            })
            .collect();
        while let Some(left) = attempts.next().await {
            if matches!(left, Ok(()) | Err(EtcdError::LeaseLost)) {
                return;
            }
        }
    }
}
