//! The end that has the files: goes through them, announces them, and sends those that are wanted.
//!
//! It goes through a folder by names, in their order, and opens a file only when its turn has come; in between somebody may replace it by
//! anything, so what is opened is looked at again. Symlinks are not followed, but for the one that was named by a person, and neither they
//! nor devices, pipes and sockets are sent: each is told.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::sync::{Arc, Weak};

use blake3::Hasher;

use super::engine::{DEPTH, Sending};
use super::holders::Upload;
use super::line::{Broken, Line, PIECE};
use super::partial::{Who, hash_on, is_part};
use super::report::{Report, reason, shown};
use super::tree::{Folder, Found, Kind, Links, of_open};
use super::wire::{Hash, Item, Message, Meta};

/// Why something that was named is not copied.
pub(crate) const NO_FILE: &str =
    "a device, pipe or socket can't be copied; for what a program writes use `cepa connect`";

/// Folders that were named and that files which are announced are in: each is open until those have their results. A copy is charged
/// 8 descriptors.
const NAMED: usize = 3;

/// What was named to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) root: Arc<Folder>,
    /// Below that.
    pub(crate) path: Vec<u8>,
    pub(crate) links: Links,
    /// What it is called at the other end; empty: it is a folder, and what is in it goes into the destination itself.
    pub(crate) name: Vec<u8>,
    /// What it is called in messages.
    pub(crate) label: String,
}

/// A file that is announced.
#[derive(Clone, Debug)]
struct Announced {
    root: Arc<Folder>,
    path: Vec<u8>,
    links: Links,
    label: Arc<str>,
    size: u64,
    meta: Meta,
}

/// A folder that is gone through.
#[derive(Debug)]
struct Open {
    root: Arc<Folder>,
    /// Below that.
    path: Vec<u8>,
    label: String,
    /// The last one is the next.
    names: Vec<Vec<u8>>,
}

pub(crate) struct Sender<'a> {
    line: &'a mut Line,
    report: &'a dyn Report,
    /// The other end does not know what was left out here, and tells the person.
    tells: bool,
    /// The last one is the next.
    sources: Vec<Source>,
    stack: Vec<Open>,
    engine: Sending<Announced>,
    /// The one whose bytes are being sent has failed at the other end.
    failed: bool,
    /// Those that were opened, as long as they are.
    named: Vec<Weak<Folder>>,
    who: Who,
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return name.to_vec();
    }
    [path, b"/", name].concat()
}

/// How many files there are, and how many bytes in them, as far as that can be seen, and while somebody waits for it.
pub(crate) fn total(sources: &[Source], who: Option<&Upload>) -> (u64, u64) {
    let is_over = || who.is_some_and(Upload::is_closed);
    let (mut files, mut bytes) = (0, 0);
    let mut count = |found: &Found| {
        files += 1;
        bytes += found.size;
    };
    for source in sources {
        if is_over() {
            break;
        }
        let Ok(found) = source.root.look(&source.path, source.links) else {
            continue;
        };
        if found.kind == Kind::File {
            count(&found);
        }
        let Ok(folder) = source.root.folder(&source.path, source.links) else {
            continue;
        };
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop()
            && !is_over()
        {
            let Ok(open) = folder.folder(&path, Links::Never) else {
                continue;
            };
            for name in open.names().unwrap_or_default() {
                match open.at(&name) {
                    Ok(Some(found)) if found.kind == Kind::File && !is_part(&name) => count(&found),
                    Ok(Some(found)) if found.kind == Kind::Folder => {
                        waiting.push(joined(&path, &name));
                    }
                    _ => {}
                }
            }
        }
    }
    (files, bytes)
}

impl<'a> Sender<'a> {
    pub(crate) fn new(
        line: &'a mut Line,
        report: &'a dyn Report,
        mut sources: Vec<Source>,
        tells: bool,
    ) -> Self {
        sources.reverse();
        Self {
            line,
            report,
            tells,
            sources,
            stack: Vec::new(),
            engine: Sending::default(),
            failed: false,
            named: Vec::new(),
            who: None,
        }
    }

    /// It also ends when nobody waits for it any more, in the middle of a hash.
    pub(crate) fn with(mut self, who: Arc<Upload>) -> Self {
        self.who = Some(who);
        self
    }

    /// Whether one more may be announced now.
    fn has_room(&mut self) -> bool {
        self.named.retain(|folder| folder.strong_count() > 0);
        self.engine.has_room() && (!self.stack.is_empty() || self.named.len() < NAMED)
    }

    /// Sends all, and waits until all has its result.
    pub(crate) fn run(mut self) -> Result<(), Broken> {
        let mut more = true;
        loop {
            while more && self.has_room() {
                more = self.announce()?;
                // Answers to what was announced, while there is more to announce.
                self.take_answers()?;
            }
            self.take_answers()?;
            if let Some((file, have)) = self.engine.begin() {
                self.send(&file, have)?;
            } else if !self.engine.is_idle() {
                let message = self.line.next_message()?;
                self.take(message)?;
            } else if !more {
                break;
            }
        }
        self.line.push(&Message::Done)?;
        loop {
            match self.line.next_message()? {
                Message::Done => return Ok(()),
                message => self.take(message)?,
            }
        }
    }

    fn take_answers(&mut self) -> Result<(), Broken> {
        while let Some(item) = self.line.try_next()? {
            match item {
                Item::Message(message) => self.take(message)?,
                Item::Bytes(_) => return Err(super::engine::Violation::Order.into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Broken> {
        match message {
            Message::Want => self.engine.wanted(None)?,
            Message::Have { size, hash } => self.engine.wanted(Some((size, hash)))?,
            Message::Refused { why } => {
                let file = self.engine.refused()?;
                self.report.refused(&file.label, file.size, &why);
            }
            Message::Stored => {
                let (file, _) = self.engine.result()?;
                self.report.stored(&file.label, file.size);
            }
            Message::Failed { why } => {
                let (file, is_last) = self.engine.result()?;
                // What broke off here was told already.
                if !why.is_empty() {
                    self.report.refused(&file.label, 0, &why);
                }
                self.failed |= is_last;
            }
            Message::Got { bytes } => self.report.arrived(self.engine.got(bytes)?),
            Message::Problem { text, is_error } => {
                self.engine.problem()?;
                self.report.problem(is_error, &text);
            }
            _ => return Err(super::engine::Violation::Order.into()),
        }
        Ok(())
    }

    fn problem(&mut self, is_error: bool, label: &str, why: &str) -> Result<(), Broken> {
        let text = format!("{label}: {why}");
        if self.tells {
            self.line.push(&Message::Problem { text, is_error })
        } else {
            self.report.problem(is_error, &text);
            Ok(())
        }
    }

    /// Announces the next one; whether there may be more.
    fn announce(&mut self) -> Result<bool, Broken> {
        let Some(open) = self.stack.last_mut() else {
            let Some(source) = self.sources.pop() else {
                return Ok(false);
            };
            self.source(source)?;
            return Ok(true);
        };
        let Some(name) = open.names.pop() else {
            self.stack.pop();
            self.line.push(&Message::Up)?;
            return Ok(true);
        };
        if is_part(&name) {
            return Ok(true);
        }
        let root = Arc::clone(&open.root);
        let path = joined(&open.path, &name);
        let label = format!("{}/{}", open.label.trim_end_matches('/'), shown(&name));
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), name),
            None => (&[][..], name),
        };
        let found = root
            .folder(folder, Links::Never)
            .and_then(|folder| folder.at(&name));
        match found {
            Ok(Some(found)) => {
                self.found(root, path, Links::Never, name, label, &found)?;
            }
            // It is gone since.
            Ok(None) => {}
            Err(e) => self.problem(true, &label, &reason(&e))?,
        }
        Ok(true)
    }

    fn source(&mut self, source: Source) -> Result<(), Broken> {
        let Source {
            root,
            path,
            links,
            name,
            label,
        } = source;
        match root.look(&path, links) {
            Ok(found) if name.is_empty() && found.kind != Kind::Folder => {
                self.problem(true, &label, "not a folder")
            }
            // Somebody wants it, where one that is found on the way is nobody's wish.
            Ok(found) if matches!(found.kind, Kind::Special | Kind::Symlink) => {
                self.problem(true, &label, NO_FILE)
            }
            Ok(found) => self.found(root, path, links, name, label, &found),
            Err(e) => self.problem(true, &label, &reason(&e)),
        }
    }

    fn found(
        &mut self,
        root: Arc<Folder>,
        path: Vec<u8>,
        links: Links,
        name: Vec<u8>,
        label: String,
        found: &Found,
    ) -> Result<(), Broken> {
        let (size, meta) = (found.size, found.meta);
        match found.kind {
            Kind::File => {
                self.line.push(&Message::File { name, size, meta })?;
                let label = label.into();
                let file = Announced {
                    root,
                    path,
                    links,
                    label,
                    size,
                    meta,
                };
                self.engine.announce(file, size);
                Ok(())
            }
            Kind::Folder if self.stack.len() + 1 >= DEPTH => {
                self.problem(true, &label, "too many folders in each other")
            }
            Kind::Folder => {
                let opened = root.folder(&path, links).and_then(|folder| {
                    let names = folder.names()?;
                    Ok((folder, names))
                });
                let (folder, mut names) = match opened {
                    Ok(opened) => opened,
                    Err(e) => return self.problem(true, &label, &reason(&e)),
                };
                names.reverse();
                // From a folder that was named on, nothing leads through symlinks.
                let (root, path) = match links {
                    Links::Inside => {
                        let folder = Arc::new(folder);
                        self.named.push(Arc::downgrade(&folder));
                        (folder, Vec::new())
                    }
                    Links::Never => (root, path),
                };
                self.stack.push(Open {
                    root,
                    path,
                    label,
                    names,
                });
                self.engine.folder();
                self.line.push(&Message::Folder { name, meta })
            }
            Kind::Symlink => self.problem(false, &label, "skipped, since it is a symlink"),
            Kind::Special => self.problem(
                false,
                &label,
                "skipped, since it is a device, pipe or socket",
            ),
        }
    }

    /// Sends one file, as much as is wanted of it.
    fn send(&mut self, file: &Announced, have: Option<(u64, Hash)>) -> Result<(), Broken> {
        self.failed = false;
        let begun = match open(file) {
            Ok(mut open) => begin(&mut open, have, self.who.as_deref())
                .map(|(hasher, offset)| (open, hasher, offset)),
            Err(e) => Err(e),
        };
        let (mut open, mut hasher, mut at) = match begun {
            Ok(begun) => begun,
            Err(e) => return self.stop(file, &reason(&e)),
        };
        self.line.push(&Message::Start { offset: at })?;
        self.report.begins(&file.label, at);
        while at < file.size {
            let left = usize::try_from(file.size - at).unwrap_or(PIECE);
            let len = left.min(PIECE);
            let read = self.line.push_read(len, &mut open, |bytes| {
                hasher.update(bytes);
            });
            match read {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.stop(file, "it became shorter while it was read");
                }
                Err(e) => return self.stop(file, &reason(&e)),
            }
            at += len as u64;
            self.engine.sent(len as u64);
            self.line.flush_if_full()?;
            self.take_answers()?;
            if self.failed {
                return self.line.push(&Message::Stop { why: String::new() });
            }
        }
        let changed = of_open(&open).is_ok_and(|now| {
            now.meta.seconds != file.meta.seconds || now.meta.nanos != file.meta.nanos
        });
        if changed {
            self.problem(false, &file.label, "it was changed while it was read")?;
        }
        let hash = *hasher.finalize().as_bytes();
        self.line.push(&Message::End { hash })
    }

    /// A file that can't be read, or not to its end.
    fn stop(&mut self, file: &Announced, why: &str) -> Result<(), Broken> {
        if !self.tells {
            self.report.refused(&file.label, 0, why);
        }
        self.line.push(&Message::Stop {
            why: why.to_owned(),
        })
    }
}

fn open(file: &Announced) -> io::Result<File> {
    let found = file.root.look(&file.path, file.links)?;
    if found.kind != Kind::File {
        return Err(io::Error::other("it is no file any more"));
    }
    let (open, found) = file.root.file(&file.path, file.links)?;
    if found.kind != Kind::File {
        return Err(io::Error::other("it is no file any more"));
    }
    Ok(open)
}

/// Where to begin: behind what the other end has, if that is the beginning of the file.
fn begin(
    open: &mut File,
    have: Option<(u64, Hash)>,
    who: Option<&Upload>,
) -> io::Result<(Hasher, u64)> {
    let Some((size, hash)) = have else {
        return Ok((Hasher::new(), 0));
    };
    let mut hasher = Hasher::new();
    let is_same = match hash_on(open, &mut hasher, size, who) {
        Ok(()) => hasher.finalize() == blake3::Hash::from_bytes(hash),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(e) => return Err(e),
    };
    if is_same {
        return Ok((hasher, size));
    }
    open.seek(SeekFrom::Start(0))?;
    Ok((Hasher::new(), 0))
}
