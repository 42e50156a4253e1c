//! A service `files:DIR[,ro]`: what peers send goes below DIR, and what they ask for comes from there.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use cepa::mux::Substream;
use cepa::onion::Onion;
use cepa::session::Session;
use tokio::sync::oneshot;

use super::destination::{self, Place};
use super::engine::Violation;
use super::holders::Upload;
use super::line::{Broken, Line, line};
use super::receiver::Receiver;
use super::report::{Silent, reason, shown};
use super::sender::{self, Sender, Source};
use super::tree::{Folder, Links};
use super::wire::Message;

/// What `files:` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    folder: PathBuf,
    read_only: bool,
}

impl Shared {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// In place of a name behind the prefix: the only service of files that there is.
pub(crate) const ONLY: &str = "cepa.files";

const READ_ONLY: &str = ",ro";

impl FromStr for Shared {
    type Err = String;

    /// `DIR[,ro]`.
    fn from_str(word: &str) -> Result<Self, String> {
        let (folder, read_only) = match word.strip_suffix(READ_ONLY) {
            Some(folder) => (folder, true),
            None => (word, false),
        };
        if folder.is_empty() {
            return Err("expected files:DIR or files:DIR,ro, for example files:/srv/files".into());
        }
        if let Some((_, option)) = folder.rsplit_once(',')
            && !option.contains('/')
        {
            return Err(format!(
                "files: has one option, ro, and not {option:?}; a folder whose name has a comma in it needs a / at its end"
            ));
        }
        Ok(Self {
            folder: folder.into(),
            read_only,
        })
    }
}

/// Serves one substream to its end. `Err` is for the log.
pub(crate) async fn serve(
    shared: &Shared,
    mut far: Onion<Substream>,
    session: &Session,
) -> Result<(), String> {
    let (line, pump) = line();
    let upload = Upload::of(session);
    let who = Arc::clone(&upload);
    let (done, result) = oneshot::channel();
    let shared = shared.clone();
    thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            let _ = done.send(transfer(&shared, line, who));
        })
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let carried = tokio::select! {
        carried = pump.run(&mut far, || upload.close()) => Some(carried),
        () = upload.given_up() => None,
    };
    // The thread has no pieces any more, and ends; until then its share is in use.
    upload.close();
    let result = result.await;
    match carried {
        // The same peer goes on elsewhere.
        None => return Ok(()),
        Some(Ok(())) => drop(far.wire_mut().drained(None).await),
        Some(Err(_)) => {}
    }
    result.unwrap_or_else(|_| {
        Err("a part of cepa has panicked; please report the lines above".to_owned())
    })
}

fn transfer(shared: &Shared, mut line: Line, who: Arc<Upload>) -> Result<(), String> {
    match requested(shared, &mut line, who) {
        // Its session tells of that.
        Ok(()) | Err(Broken::Gone) => Ok(()),
        Err(Broken::Told(why)) => Err(why),
        Err(Broken::Protocol(why)) => {
            line.fail(&why);
            Err(why)
        }
    }
}

fn requested(shared: &Shared, line: &mut Line, who: Arc<Upload>) -> Result<(), Broken> {
    let request = line.next_message()?;
    let root = match Folder::open(&shared.folder) {
        Ok(root) => Arc::new(root),
        Err(e) => {
            // What exactly is wrong here is for the operator, not for the peer.
            line.fail("the folder of the service is not available; the server's log says why");
            let why = format!("{}: {}", shared.folder.display(), reason(&e));
            return Err(Broken::Told(why));
        }
    };
    match request {
        Message::Get { totals, paths } => {
            let sources: Vec<_> = paths.iter().map(|path| source(&root, path)).collect();
            if totals {
                let (files, bytes) = sender::total(&sources, Some(&who));
                line.push(&Message::Total { files, bytes })?;
            }
            Sender::new(line, &Silent, sources, true).with(who).run()
        }
        Message::Put { .. } if shared.read_only => {
            line.fail("the service is read-only (files:…,ro): files can be fetched from it and not sent to it");
            Ok(())
        }
        Message::Put { several, to } => {
            match destination::find(Place::Below(&root), &to, several) {
                Ok(to) => Receiver::new(line, &Silent, to, Some(who)).run(),
                Err(why) => {
                    line.fail(&why);
                    Ok(())
                }
            }
        }
        _ => Err(Violation::Order.into()),
    }
}

/// What something that is asked for is called, by whoever sends it. A path that ends in no name is the folder, and what is in it is wanted.
pub(crate) fn name_of(path: &[u8]) -> &[u8] {
    let mut names = path.rsplit(|b| *b == b'/');
    match names.find(|name| !name.is_empty()).unwrap_or_default() {
        b"." | b".." => &[],
        name => name,
    }
}

/// What a peer asks for.
fn source(root: &Arc<Folder>, path: &[u8]) -> Source {
    Source {
        root: Arc::clone(root),
        path: path.to_vec(),
        links: Links::Inside,
        name: name_of(path).to_vec(),
        label: if path.is_empty() {
            ".".to_owned()
        } else {
            shown(path)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_files_has_a_folder_and_one_option() {
        for (word, folder, read_only) in [
            ("/srv/up", "/srv/up", false),
            ("/srv/up,ro", "/srv/up", true),
            ("up", "up", false),
            ("/a,b/", "/a,b/", false),
            ("/a,ro/,ro", "/a,ro/", true),
        ] {
            let folder = PathBuf::from(folder);
            let expected = Shared { folder, read_only };
            assert_eq!(word.parse(), Ok(expected), "{word}");
        }
        for word in ["", ",ro", "/srv,rw", "/srv,ro,x"] {
            assert!(word.parse::<Shared>().is_err(), "{word}");
        }
    }
}
