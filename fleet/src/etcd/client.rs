//! One connection with one etcd, and the calls that a fleet makes of it. Every call ends: with an answer, an error, or after
//! [`Options::patience`]. A connection that failed is thrown away; whoever keeps the fleet opens one with the next endpoint.
//!
//! What comes is bounded before it is decoded ([`MOST`]); pages that turn out larger are asked for in smaller ones, so that one member
//! with large values does not hide the others.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Ready, ready};
use futures::stream;
use futures::{Stream, StreamExt as _};
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::error::EtcdError;
use super::proto;
use super::tls::{self, Tls, Wire};

/// Longest message that is taken. An etcd refuses requests of more than 1.5 MiB, and cuts what it tells a watcher to 2 MiB.
pub const MOST: usize = 4 << 20;
/// What is written at once at most: an etcd has 128 by default.
pub const MOST_OPS: usize = 100;
/// Keys of one page.
const PAGE: i64 = 500;
/// A transaction's bytes, well below etcd's 1.5 MiB.
pub const MOST_WRITTEN: usize = 512 << 10;
/// How often an idle connection is probed; an etcd takes more than one in 5 s for an attack.
const PROBE: Duration = Duration::from_secs(10);

/// How an etcd is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// TLS, and with which authority.
    pub tls: Option<Tls>,
    /// As whom.
    pub login: Option<Login>,
    /// Time for each call, and for a connection; default 5 s: a lease of 10 s is kept alive by the second attempt.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            login: None,
            patience: Duration::from_secs(5),
        }
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct Login {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A key and its value, with the store's revision at which it was written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was written last.
    pub revision: u64,
    /// When it was made: it stays when it is written again.
    pub created: u64,
}

/// One page of keys.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub more: bool,
    /// The store's revision that it shows.
    pub revision: u64,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key is gone: taken back, or its lease ended.
    Deleted {
        /// Which one.
        key: Vec<u8>,
        /// When.
        revision: u64,
    },
}

/// What is written: a value, or that the key goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Puts a value there, under the lease.
    Put {
        /// The whole key.
        key: Vec<u8>,
        /// What it has from then on.
        value: Vec<u8>,
    },
    /// Deletes the key.
    Delete {
        /// The whole key.
        key: Vec<u8>,
    },
}

impl Write {
    /// Its bytes in a request, about.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len() + 32,
            Self::Delete { key } => key.len() + 32,
        }
    }

    /// Never: a key has a prefix.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A connection.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    endpoint: String,
    token: Option<MetadataValue<Ascii>>,
    patience: Duration,
}

impl Client {
    /// Connects, and logs in where a user is given. An endpoint that answers and has no leader is refused: it could
    /// neither be written nor read.
    ///
    /// # Errors
    /// It is away, is no etcd, or refuses us.
    pub async fn connect(endpoint: &str, options: &Options) -> Result<Self, EtcdError> {
        let patience = options.patience;
        let wire = tls::open(endpoint, options.tls.as_ref(), patience).await?;
        let malformed = |e: &dyn std::fmt::Display| EtcdError::Malformed(e.to_string());
        let at = Endpoint::from_shared(format!("http://{endpoint}"));
        let at = at
            .map_err(|e| malformed(&e))?
            .http2_keep_alive_interval(PROBE)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(16 << 10)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(2 << 20);
        let connecting = at.connect_with_connector(Once(Some(wire)));
        let connected = timeout(patience, connecting).await;
        let channel = connected
            .map_err(|_| EtcdError::Slow(patience.as_secs()))?
            .map_err(|e| malformed(&e))?;
        let mut client = Self {
            channel,
            endpoint: endpoint.to_owned(),
            token: None,
            patience,
        };
        if let Some(login) = &options.login {
            client.token = Some(client.log_in(login).await?);
        }
        let status: proto::StatusResponse = client
            .call("/etcdserverpb.Maintenance/Status", proto::StatusRequest {})
            .await?;
        if status.leader == 0 {
            return Err(EtcdError::NotReady("it has no leader".to_owned()));
        }
        Ok(client)
    }

    /// Where it is connected.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn log_in(&self, login: &Login) -> Result<MetadataValue<Ascii>, EtcdError> {
        let asked = proto::AuthenticateRequest {
            name: login.user.clone(),
            password: login.password.to_string(),
        };
        let answer: proto::AuthenticateResponse =
            self.call("/etcdserverpb.Auth/Authenticate", asked).await?;
        let token = MetadataValue::try_from(answer.token);
        let mut token = token.map_err(|_| EtcdError::Malformed("its token".to_owned()))?;
        token.set_sensitive(true);
        Ok(token)
    }

    /// One page of the keys from `from` on, and before `end`, as they were at `revision` (0: now).
    ///
    /// # Errors
    /// As [`EtcdError`] says.
    pub async fn page(&self, from: &[u8], end: &[u8], revision: u64) -> Result<Page, EtcdError> {
        let mut limit = PAGE;
        loop {
            let asked = proto::RangeRequest {
                key: from.to_vec(),
                range_end: end.to_vec(),
                limit,
                revision: signed(revision),
            };
            let answer: Result<proto::RangeResponse, _> =
                self.call("/etcdserverpb.KV/Range", asked).await;
            match answer {
                Err(EtcdError::TooLarge(_)) if limit > 1 => limit = (limit / 8).max(1),
                Err(error) => return Err(error),
                Ok(answer) => {
                    let revision = revision_of(answer.header.as_ref())?;
                    let entries: Vec<_> = answer.kvs.into_iter().map(entry).collect();
                    if answer.more && entries.is_empty() {
                        return Err(EtcdError::Malformed("a page without keys".to_owned()));
                    }
                    return Ok(Page {
                        entries,
                        more: answer.more,
                        revision,
                    });
                }
            }
        }
    }

    /// Writes all or nothing, at most [`MOST_OPS`], the values under `lease`; the store's revision then.
    ///
    /// # Errors
    /// [`EtcdError::LeaseLost`], or as the others say.
    pub async fn write(&self, lease: i64, writes: Vec<Write>) -> Result<u64, EtcdError> {
        let success = writes.into_iter().map(|write| {
            let op = match write {
                Write::Put { key, value } => {
                    proto::Op::Put(proto::PutRequest { key, value, lease })
                }
                Write::Delete { key } => proto::Op::Delete(proto::DeleteRangeRequest {
                    key,
                    range_end: Vec::new(),
                }),
            };
            proto::RequestOp { op: Some(op) }
        });
        let asked = proto::TxnRequest {
            compare: Vec::new(),
            success: success.collect(),
            failure: Vec::new(),
        };
        let answer: proto::TxnResponse = self.call("/etcdserverpb.KV/Txn", asked).await?;
        revision_of(answer.header.as_ref())
    }

    /// A lease of so many seconds.
    ///
    /// # Errors
    /// As [`EtcdError`] says.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, EtcdError> {
        let asked = proto::LeaseGrantRequest {
            ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            id: 0,
        };
        let answer: proto::LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", asked).await?;
        if answer.id == 0 || answer.ttl <= 0 {
            return Err(EtcdError::Malformed("a lease without a number".to_owned()));
        }
        Ok(answer.id)
    }

    /// Keeps a lease for another whole time.
    ///
    /// # Errors
    /// [`EtcdError::LeaseLost`], or as the others say.
    pub async fn keep_alive(&self, lease: i64) -> Result<(), EtcdError> {
        let asked = proto::LeaseKeepAliveRequest { id: lease };
        let told = async {
            let path = "/etcdserverpb.Lease/LeaseKeepAlive";
            let mut answers: Streaming<proto::LeaseKeepAliveResponse> =
                self.stream(path, stream::once(ready(asked)), false).await?;
            next(&mut answers).await
        };
        match timeout(self.patience, told).await {
            Err(_) => Err(EtcdError::Slow(self.patience.as_secs())),
            Ok(Ok(Some(answer))) if answer.id == lease && answer.ttl > 0 => Ok(()),
            Ok(Ok(Some(_))) => Err(EtcdError::LeaseLost),
            Ok(Ok(None)) => Err(EtcdError::NotReady("it ended the answer".to_owned())),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Ends a lease, and all that stands under it.
    ///
    /// # Errors
    /// As [`EtcdError`] says.
    pub async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let asked = proto::LeaseRevokeRequest { id: lease };
        let _: proto::LeaseRevokeResponse =
            self.call("/etcdserverpb.Lease/LeaseRevoke", asked).await?;
        Ok(())
    }

    /// Tells of all changes from `revision` on of keys from `from` on and before `end`.
    ///
    /// # Errors
    /// As [`EtcdError`] says. That the revision is compacted is the first that the watch tells.
    pub async fn watch(&self, from: &[u8], end: &[u8], revision: u64) -> Result<Watch, EtcdError> {
        let asked = proto::WatchRequest {
            create: Some(proto::WatchCreateRequest {
                key: from.to_vec(),
                range_end: end.to_vec(),
                start_revision: signed(revision),
                progress_notify: true,
                fragment: true,
            }),
        };
        // It lasts as long as this side has not said all.
        let asked = stream::once(ready(asked)).chain(stream::pending());
        let opened = async {
            let path = "/etcdserverpb.Watch/Watch";
            let mut answers: Streaming<proto::WatchResponse> =
                self.stream(path, asked, true).await?;
            let first = next(&mut answers).await?;
            let first = first.ok_or_else(|| EtcdError::NotReady("no watch".to_owned()))?;
            Ok((answers, first))
        };
        let opened = timeout(self.patience, opened).await;
        let (answers, first) = opened.map_err(|_| EtcdError::Slow(self.patience.as_secs()))??;
        // Behind what we have seen it is another store, or an old copy of it, and what it tells from there on is another story.
        let there = revision_of(first.header.as_ref())?;
        if there.saturating_add(1) < revision {
            return Err(EtcdError::Compacted);
        }
        let mut watch = Watch {
            answers,
            next: revision,
            ahead: None,
        };
        watch.ahead = Some(watch.read(first)?);
        Ok(watch)
    }

    /// One question, one answer, within the time for it.
    async fn call<A, B>(&self, path: &'static str, asked: A) -> Result<B, EtcdError>
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        let answered = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::<A, B>::default();
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(self.request(asked, false), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|e| of(&e))
        };
        let answered = timeout(self.patience, answered).await;
        answered.unwrap_or(Err(EtcdError::Slow(self.patience.as_secs())))
    }

    async fn stream<A, B>(
        &self,
        path: &'static str,
        asked: impl Stream<Item = A> + Send + 'static,
        with_leader: bool,
    ) -> Result<Streaming<B>, EtcdError>
    where
        A: Message + Send + Sync + 'static,
        B: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let (codec, path) = (
            ProstCodec::<A, B>::default(),
            PathAndQuery::from_static(path),
        );
        let request = self.request(asked, with_leader);
        let answer = grpc.streaming(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|e| of(&e))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, EtcdError> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MOST);
        let ready = grpc.ready().await;
        ready.map_err(|_| EtcdError::NotReady("the connection is lost".to_owned()))?;
        Ok(grpc)
    }

    fn request<T>(&self, body: T, with_leader: bool) -> Request<T> {
        let mut request = Request::new(body);
        let fields = request.metadata_mut();
        if let Some(token) = &self.token {
            fields.insert("token", token.clone());
        }
        if with_leader {
            // A member that is cut off from the others ends the watch, instead of being silent.
            fields.insert("hasleader", MetadataValue::from_static("true"));
        }
        request
    }
}

/// Changes as they come, in their order.
pub struct Watch {
    answers: Streaming<proto::WatchResponse>,
    /// The first revision that has not been told whole.
    next: u64,
    ahead: Option<Vec<Change>>,
}

impl Watch {
    /// From where a later watch has to go on.
    #[must_use]
    pub fn resume_at(&self) -> u64 {
        self.next
    }

    /// What has changed; nothing where etcd only shows that it is there.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`], or as the others say. The watch is over then.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Vec<Change>, EtcdError> {
        if let Some(ahead) = self.ahead.take()
            && !ahead.is_empty()
        {
            return Ok(ahead);
        }
        match next(&mut self.answers).await? {
            Some(answer) => self.read(answer),
            None => Err(EtcdError::NotReady("it ended the watch".to_owned())),
        }
    }

    fn read(&mut self, answer: proto::WatchResponse) -> Result<Vec<Change>, EtcdError> {
        if answer.compact_revision > 0 {
            return Err(EtcdError::Compacted);
        }
        if answer.canceled {
            let status = Status::unavailable(answer.cancel_reason);
            let permitted = !status.message().contains("permission denied");
            return Err(if permitted {
                of(&status)
            } else {
                of(&Status::permission_denied(status.message()))
            });
        }
        let revision = revision_of(answer.header.as_ref())?;
        let (fragment, created) = (answer.fragment, answer.created);
        let changes: Vec<Change> = answer.events.into_iter().filter_map(change).collect();
        // Its own revision may be ahead of what it has told so far: only a sign of life without changes is not.
        let told = changes.iter().map(revision_of_change).max();
        match told {
            Some(last) if !fragment => self.next = self.next.max(last.saturating_add(1)),
            None if !created => self.next = self.next.max(revision.saturating_add(1)),
            _ => {}
        }
        Ok(changes)
    }
}

fn revision_of_change(change: &Change) -> u64 {
    match change {
        Change::Put(entry) => entry.revision,
        Change::Deleted { revision, .. } => *revision,
    }
}

fn change(event: proto::Event) -> Option<Change> {
    let kv = event.kv?;
    match event.kind {
        0 => Some(Change::Put(entry(kv))),
        1 => Some(Change::Deleted {
            revision: unsigned(kv.mod_revision),
            key: kv.key,
        }),
        _ => None,
    }
}

fn entry(kv: proto::KeyValue) -> Entry {
    Entry {
        key: kv.key,
        value: kv.value,
        revision: unsigned(kv.mod_revision),
        created: unsigned(kv.create_revision),
    }
}

async fn next<T>(answers: &mut Streaming<T>) -> Result<Option<T>, EtcdError> {
    answers.message().await.map_err(|e| of(&e))
}

fn of(status: &Status) -> EtcdError {
    EtcdError::of(status, MOST)
}

fn revision_of(header: Option<&proto::ResponseHeader>) -> Result<u64, EtcdError> {
    let revision = header.map(|it| unsigned(it.revision)).filter(|it| *it > 0);
    revision.ok_or_else(|| EtcdError::Malformed("an answer without a revision".to_owned()))
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The end of the keys that begin with these bytes.
#[must_use]
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys there are.
    vec![0]
}

/// Gives away the one connection that was opened; there is no second.
struct Once(Option<Wire>);

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<Wire>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let lost = || std::io::Error::other("the connection is lost");
        ready(self.0.take().map(TokioIo::new).ok_or_else(lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(&[1, 255, 255]), [2]);
        assert_eq!(end_of(&[255]), [0]);
    }
}
