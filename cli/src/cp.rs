//! `cepa cp`: files and folders to and from a service `files:DIR` of a peer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use cepa::mux::StreamTimeouts;
use cepa::session::OpenOptions;
use cepa::session::reserved::FILES_PREFIX;
use cepa::transports::Endpoint;
use tokio::sync::oneshot;

use crate::args;
use crate::chosen;
use crate::connection::Connected;
use crate::exit::{Code, Failure, say};
use crate::files::destination::{self, Place};
use crate::files::line::{Broken, Line, line};
use crate::files::receiver::Receiver;
use crate::files::report::{Report, reason, shown};
use crate::files::sender::{self, NO_FILE, Sender, Source};
use crate::files::served::{ONLY, name_of};
use crate::files::tree::{Folder, Links};
use crate::files::wire::Message;
use crate::id;
use crate::keep;
use crate::names;
use crate::offered;
use crate::progress::Progress;
use crate::reconnect::Reconnect;
use crate::say::has_status_line;
use crate::service_end;
use crate::short_code;
use crate::sides::{Remote, Side};
use crate::signal::Signals;

pub(crate) async fn run(args: args::Cp) -> Result<(), Failure> {
    let job = Arc::new(Job::of(&args.from, &args.to)?);
    let identity = id::load(&args.dialling.identity)?;
    let keep = args.dialling.durable.keep(true);
    let mut peer = job.remote.peer.clone();
    short_code::redeem(&mut peer, &args.dialling.trust, &args.code_relay, &identity).await?;
    let mut again = Reconnect::new(&peer, &args.dialling, &identity, None).keeping(keep);
    let mut connection = again.first(args.reconnect).await?;
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    let how = "write one in front of the path, as in @NAME:SERVICE/PATH";
    let service = chosen::of_kind(&connection, &job.remote.service, offered::FILES, how).await?;
    let progress = Progress::new();
    progress.show();
    let mut signals = Signals::watch();
    loop {
        let ended = tokio::select! {
            ended = carried(&connection, &service, &job, &progress) => ended,
            signal = signals.ended_by() => {
                Progress::hide();
                say("interrupted; the same command goes on from here");
                connection.close().await;
                return Err(Failure::by_signal(signal));
            }
        };
        let failure = match ended {
            Ok(()) => break,
            Err(failure) => failure.copying_again(),
        };
        if !(args.reconnect && failure.is_transient()) {
            Progress::hide();
            connection.close().await;
            return Err(failure);
        }
        let next = again.after(&connection, failure, |line| say(line));
        connection = tokio::select! {
            next = next => next?,
            signal = signals.ended_by() => {
                Progress::hide();
                return Err(Failure::by_signal(signal));
            }
        };
        progress.again();
    }
    Progress::hide();
    connection.finish().await?;
    progress.ended()
}

/// What is to be done.
#[derive(Debug)]
struct Job {
    remote: Remote,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// These to the peer.
    Put(Vec<PathBuf>),
    /// These of the peer to there.
    Get(Vec<Vec<u8>>, PathBuf),
}

impl Job {
    fn of(from: &[Side], to: &Side) -> Result<Self, Failure> {
        let usage = |why: &str| Err(Failure::new(Code::Usage, why));
        let remotes: Vec<&Remote> = from.iter().filter_map(Side::remote).collect();
        match to {
            Side::Remote(_) if !remotes.is_empty() => usage(
                "both sides are peers; copy to this machine first, or run `cepa cp` at one of them",
            ),
            Side::Remote(remote) => {
                let paths = from.iter().filter_map(|side| match side {
                    Side::Local(path) => Some(path.clone()),
                    Side::Remote(_) => None,
                });
                Ok(Self {
                    remote: remote.clone(),
                    way: Way::Put(paths.collect()),
                })
            }
            Side::Local(to) => {
                let Some(first) = remotes.first() else {
                    let why = from
                        .iter()
                        .find_map(meant)
                        .or_else(|| meant(&Side::Local(to.clone())));
                    return usage(&why.unwrap_or_else(|| {
                        "both sides are on this machine; give a peer's as @NAME:SERVICE/PATH"
                            .to_owned()
                    }));
                };
                if remotes.len() < from.len() {
                    return usage(
                        "some sources are a peer's and some are here; copy them one after the other",
                    );
                }
                let same = |other: &&Remote| {
                    (&other.word, &other.service) == (&first.word, &first.service)
                };
                if !remotes.iter().all(same) {
                    return usage(
                        "the sources are of several services; copy them one after the other",
                    );
                }
                let paths = remotes.iter().map(|remote| remote.path.clone());
                Ok(Self {
                    remote: (*first).clone(),
                    way: Way::Get(paths.collect(), to.clone()),
                })
            }
        }
    }
}

/// What a side that is no file was to be, where it looks like a peer's.
fn meant(side: &Side) -> Option<String> {
    let Side::Local(path) = side else {
        return None;
    };
    let word = path.to_str().filter(|_| !path.exists())?;
    let (name, rest) = word.split_once(':')?;
    if names::has(name) {
        return Some(format!(
            "{word} is on this machine as it stands; did you mean @{word}?"
        ));
    }
    // HOST:PATH of scp has no such scheme.
    let rest = rest.trim_end_matches(|c| c != ':').trim_end_matches(':');
    let at = [word.to_owned(), format!("{name}:{rest}")];
    let at = at.iter().find(|at| at.parse::<Endpoint>().is_ok());
    Some(match at {
        Some(at) => format!(
            "{at} is an address, and files go to a peer that is known by its id: cepa://PEERID@{at}/SERVICE/PATH, or `cepa peer add NAME PEERID --at {at}` once and @NAME:SERVICE/PATH"
        ),
        None => format!(
            "{word} is on this machine as it stands; a peer's side is @NAME:SERVICE/PATH, TICKET:SERVICE/PATH or cepa://PEERID@ADDR/SERVICE/PATH"
        ),
    })
}

/// Carries all of it over one session.
async fn carried(
    connection: &Connected,
    plain: &str,
    job: &Arc<Job>,
    progress: &Arc<Progress>,
) -> Result<(), Failure> {
    let name = if plain.is_empty() {
        ONLY.to_owned()
    } else {
        format!("{FILES_PREFIX}{plain}")
    };
    let patient = OpenOptions::new().timeouts(StreamTimeouts::NONE);
    let opened = connection.session.open_with(&name, &patient).await;
    let mut far = opened.map_err(|e| service_end::as_typed(e, plain))?;
    let (line, pump) = line();
    let (done, result) = oneshot::channel();
    let (job, progress) = (Arc::clone(job), Arc::clone(progress));
    thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            let _ = done.send(transfer(&job, line, &*progress));
        })
        .map_err(|e| Failure::new(Code::Other, format!("cannot start a thread: {e}")))?;
    let carried = pump.run(&mut far, || {}).await;
    let result = result.await.map_err(|_| {
        Failure::new(
            Code::Other,
            "a part of cepa has panicked; please report the lines above",
        )
    })?;
    match result {
        Ok(()) => Ok(()),
        Err(End::Failed(failure)) => Err(failure),
        Err(End::Broken(Broken::Gone)) => {
            let lost = connection.lost().await;
            Err(lost.unwrap_or_else(|| {
                let why = carried.err().map_or_else(
                    || "the peer ended the transfer; its log tells more".to_owned(),
                    |e| e.to_string(),
                );
                Failure::new(Code::Lost, why)
            }))
        }
        Err(End::Broken(Broken::Protocol(why))) => Err(Failure::new(Code::Other, why)),
        Err(End::Broken(Broken::Told(why))) => Err(Failure::new(Code::Refused, why)),
    }
}

/// Why a transfer ended early.
enum End {
    Broken(Broken),
    Failed(Failure),
}

impl From<Broken> for End {
    fn from(e: Broken) -> Self {
        Self::Broken(e)
    }
}

fn transfer(job: &Job, mut line: Line, report: &dyn Report) -> Result<(), End> {
    let line = &mut line;
    let ended = match &job.way {
        Way::Put(paths) => {
            let sources = sources(paths, report).map_err(End::Failed)?;
            line.push(&Message::Put {
                several: paths.len() > 1,
                to: job.remote.path.clone(),
            })?;
            if has_status_line() {
                let (files, bytes) = sender::total(&sources, None);
                report.total(files, bytes);
            }
            Sender::new(line, report, sources, false).run()
        }
        Way::Get(paths, to) => {
            let found =
                destination::find(Place::Anywhere, to.as_os_str().as_bytes(), paths.len() > 1);
            let to = found.map_err(|why| End::Failed(Failure::new(Code::Local, why)))?;
            line.push(&Message::Get {
                totals: has_status_line(),
                paths: paths.clone(),
            })?;
            let names = paths.iter().map(|path| name_of(path).to_vec());
            Receiver::new(line, report, to, None)
                .asking(names.collect())
                .run()
        }
    };
    if let Err(Broken::Protocol(why)) = &ended {
        line.fail(why);
    }
    Ok(ended?)
}

/// What was named here. A symlink that was named is followed.
fn sources(paths: &[PathBuf], report: &dyn Report) -> Result<Vec<Source>, Failure> {
    let root = Folder::open(Path::new("/"));
    let root = root.map_err(|e| Failure::new(Code::Local, format!("/: {}", reason(&e))))?;
    let root = Arc::new(root);
    let mut sources = Vec::new();
    for path in paths {
        let label = shown(path.as_os_str().as_bytes());
        let real = match path.canonicalize() {
            Ok(real) => real,
            // What `<(…)` of a shell gives: it has no path.
            Err(_) if path.exists() => {
                report.refused(&label, 0, NO_FILE);
                continue;
            }
            Err(e) => {
                report.refused(&label, 0, &reason(&e));
                continue;
            }
        };
        // `.`, `..` and `a/.` mean what is in a folder, and it has a name beyond that.
        let typed = path.as_os_str().as_bytes();
        let is_inside = typed == b"." || typed.ends_with(b"/.") || path.file_name().is_none();
        let name = if is_inside { None } else { path.file_name() };
        let real = real.as_os_str().as_bytes();
        sources.push(Source {
            root: Arc::clone(&root),
            path: real.strip_prefix(b"/").unwrap_or(real).to_vec(),
            links: Links::Never,
            name: name.map(OsStr::as_bytes).unwrap_or_default().to_vec(),
            label,
        });
    }
    Ok(sources)
}
