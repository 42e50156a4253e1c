//! The end that files come to: puts each where it belongs, below the destination and nowhere else.
//!
//! A folder has its own time and permissions once the last file in it is in its place: what is to be in it holds it ([`Dir`]), and the
//! last one that lets go sets them.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Answer, Receiving, Violation, is_name};
use super::line::{Broken, Line};
use super::partial::{Offer, Partial, Present, Who, look, part_of};
use super::report::{IN_NO_FOLDER, Report, reason, shown};
use super::tree::{Folder, Kind, Links, set_meta};
use super::wire::{Item, Message, Meta, PATH_MAX};

/// Where all goes.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) folder: Arc<Folder>,
    /// What the one thing that comes is called there, where that is not its own name.
    pub(crate) name: Option<Vec<u8>>,
    /// The folder is one that an unfinished copy has made under a new name.
    pub(crate) begun: Option<Begun>,
}

/// An unfinished copy of a folder to a new name.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) folder: Arc<Folder>,
    pub(crate) name: Vec<u8>,
    /// What is copied, by its own name.
    pub(crate) source: Vec<u8>,
}

/// How often the sender is told how much has come.
const TELL: Duration = Duration::from_millis(500);

/// A folder that things come into.
#[derive(Debug)]
struct Dir {
    base: Arc<Folder>,
    /// Below that.
    path: Vec<u8>,
    /// What it is given in the end.
    meta: Option<Meta>,
    /// Why nothing can come into it.
    broken: Option<String>,
    /// What it is in keeps its own time for as long as this may still change.
    _parent: Option<Arc<Dir>>,
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let (Some(meta), None) = (self.meta, &self.broken)
            && let Ok(folder) = self.base.folder(&self.path, Links::Never)
        {
            // One that somebody else owns keeps what it has.
            let _ = set_meta(folder, meta);
        }
    }
}

/// A file that was announced and is wanted.
#[derive(Debug)]
struct Waiting {
    dir: Arc<Dir>,
    offer: Offer,
    present: Present,
}

/// The file whose bytes are coming.
#[derive(Debug)]
enum Coming {
    Open(Box<Partial>),
    /// Its sender was told that it has failed; what still comes of it is dropped.
    Failed,
}

pub(crate) struct Receiver<'a> {
    line: &'a mut Line,
    report: &'a dyn Report,
    to: Destination,
    who: Who,
    engine: Receiving<Label>,
    waiting: VecDeque<Waiting>,
    stack: Vec<Arc<Dir>>,
    /// The folder that was used last, open.
    open: Option<(Arc<Dir>, Arc<Folder>)>,
    coming: Option<(Coming, Arc<Dir>)>,
    bytes: u64,
    told: (Instant, u64),
    /// Beside the folder that a copy has made under a new name, until all of it is there.
    unfinished: Option<Vec<u8>>,
    /// Errors that the sender told of what was asked for itself, and not of something in it.
    reported_missing: usize,
    /// Something could not be copied.
    is_lacking: bool,
}

/// What a file is called in messages, and its size.
type Label = (Arc<str>, u64);

impl<'a> Receiver<'a> {
    pub(crate) fn new(
        line: &'a mut Line,
        report: &'a dyn Report,
        to: Destination,
        who: Who,
    ) -> Self {
        Self {
            line,
            report,
            to,
            who,
            engine: Receiving::default(),
            waiting: VecDeque::new(),
            stack: Vec::new(),
            open: None,
            coming: None,
            bytes: 0,
            told: (Instant::now(), 0),
            unfinished: None,
            reported_missing: 0,
            is_lacking: false,
        }
    }

    /// Takes only what has one of these names, each once and in their order, and says what does not come: a sender that was asked
    /// for something does not choose what is written here. No name: what is in a folder.
    pub(crate) fn asking(mut self, names: Vec<Vec<u8>>) -> Self {
        self.engine = Receiving::asking(names);
        self
    }

    /// Receives all there is.
    pub(crate) fn run(mut self) -> Result<(), Broken> {
        loop {
            match self.line.next()? {
                Item::Bytes(bytes) => self.bytes(&bytes)?,
                Item::Message(Message::Done) => {
                    self.engine.done()?;
                    break;
                }
                Item::Message(message) => self.take(message)?,
            }
        }
        self.report_missing();
        // The times of the last folders.
        self.open = None;
        self.stack.clear();
        if let (Some(part), false) = (&self.unfinished, self.is_lacking) {
            let _ = self.to.folder.remove(part);
        }
        if self.bytes > self.told.1 {
            self.line.push(&Message::Got { bytes: self.bytes })?;
        }
        self.line.push(&Message::Done)?;
        self.line.flush()
    }

    /// Tells what was asked for and has not come, where the sender has not.
    fn report_missing(&mut self) {
        if self.engine.missing().count() <= self.reported_missing {
            return;
        }
        self.is_lacking = true;
        for name in self.engine.missing() {
            let label = if name.is_empty() {
                ".".to_owned()
            } else {
                shown(name)
            };
            self.report
                .refused(&label, 0, "the peer sent nothing for it");
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Broken> {
        match message {
            Message::Folder { name, meta } => {
                self.engine.folder(&name)?;
                self.folder(name, meta)
            }
            Message::Up => {
                self.engine.up()?;
                self.stack.pop();
                Ok(())
            }
            Message::File { name, size, meta } => {
                self.engine.file(&name)?;
                self.file(name, size, meta)
            }
            Message::Start { offset } => {
                let (label, _) = self.engine.start(offset)?.clone();
                self.begin(&label, offset)
            }
            Message::Data { len } => Ok(self.engine.data(len)?),
            Message::End { hash } => {
                let (label, size) = self.engine.end()?;
                let finished = match self.coming.take() {
                    Some((Coming::Open(partial), _dir)) => partial.finish(&hash),
                    _ => return Ok(()),
                };
                match finished {
                    Ok(_) => {
                        self.report.stored(&label, size);
                        self.line.push(&Message::Stored)
                    }
                    Err(e) => self.failed(&label, 0, &reason(&e)),
                }
            }
            Message::Stop { why } => {
                let (label, size) = self.engine.stop()?;
                let coming = self.coming.take();
                if coming.is_none() {
                    self.waiting.pop_front();
                }
                if !why.is_empty() {
                    self.is_lacking = true;
                    self.report.refused(&label, size, &why);
                }
                if matches!(coming, Some((Coming::Failed, _))) {
                    return Ok(());
                }
                self.line.push(&Message::Failed { why: String::new() })
            }
            Message::Total { files, bytes } => {
                self.report.total(files, bytes);
                Ok(())
            }
            Message::Problem { text, is_error } => {
                self.is_lacking |= is_error;
                self.reported_missing += usize::from(is_error && self.engine.is_at_top());
                self.report.problem(is_error, &text);
                Ok(())
            }
            _ => Err(Violation::Order.into()),
        }
    }

    /// Where the next thing goes, and under which name.
    fn place(&self, name: Vec<u8>) -> (Arc<Dir>, Vec<u8>) {
        if let Some(dir) = self.stack.last() {
            return (Arc::clone(dir), name);
        }
        let top = Dir {
            base: Arc::clone(&self.to.folder),
            path: Vec::new(),
            meta: None,
            broken: None,
            _parent: None,
        };
        (Arc::new(top), self.to.name.clone().unwrap_or(name))
    }

    /// A folder of this transfer, open.
    fn opened(&mut self, dir: &Arc<Dir>) -> Result<Arc<Folder>, String> {
        if let Some(why) = &dir.broken {
            return Err(format!("{IN_NO_FOLDER}: {why}"));
        }
        if let Some((last, folder)) = &self.open
            && Arc::ptr_eq(last, dir)
        {
            return Ok(Arc::clone(folder));
        }
        // A folder that is let go sets its time, so nothing is held for longer than it is used.
        self.open = None;
        if dir.path.is_empty() {
            return Ok(Arc::clone(&dir.base));
        }
        let folder = dir.base.folder(&dir.path, Links::Never);
        let folder = Arc::new(folder.map_err(|e| reason(&e))?);
        self.open = Some((Arc::clone(dir), Arc::clone(&folder)));
        Ok(folder)
    }

    fn label(dir: &Dir, name: &[u8]) -> String {
        match shown(&dir.path) {
            path if path.is_empty() => shown(name),
            path => format!("{path}/{}", shown(name)),
        }
    }

    /// Notes beside a new name for a folder that it is not all there, or finds that noted.
    fn begin_new(&mut self, source: &[u8]) {
        if let Some(begun) = self.to.begun.take_if(|begun| begun.source == source) {
            self.to.folder = begun.folder;
            self.to.name = Some(begun.name);
        } else if let Some(name) = &self.to.name
            && matches!(self.to.folder.at(name), Ok(None))
        {
            let noted = self.to.folder.writable(&part_of(name, 0), true);
            // Without it the same command would begin in the folder, as that of cp does.
            let _ = noted.and_then(|mut file| {
                file.set_len(0)?;
                file.write_all(source)
            });
        }
        self.unfinished = self.to.name.as_ref().map(|name| part_of(name, 0));
    }

    fn folder(&mut self, name: Vec<u8>, meta: Meta) -> Result<(), Broken> {
        if self.stack.is_empty() {
            self.begin_new(&name);
        }
        let (parent, name) = self.place(name);
        if name.is_empty() {
            // The destination, which is there.
            self.stack.push(parent);
            return Ok(());
        }
        let label = Self::label(&parent, &name);
        let path = match parent.path.as_slice() {
            [] => name.clone(),
            path => [path, b"/", &name].concat(),
        };
        let made = if path.len() > PATH_MAX {
            Err("its path is too long".to_owned())
        } else {
            self.opened(&parent).and_then(|folder| make(&folder, &name))
        };
        self.is_lacking |= made.is_err();
        if let Err(why) = &made
            && parent.broken.is_none()
        {
            let text = format!("{label}: {why}");
            self.report.problem(true, &text);
            self.line.push(&Message::Problem {
                text,
                is_error: true,
            })?;
        }
        self.stack.push(Arc::new(Dir {
            base: Arc::clone(&self.to.folder),
            // Of what can't be made no path is kept, however deep that goes.
            path: if made.is_ok() { path } else { Vec::new() },
            meta: made.is_ok().then_some(meta),
            broken: made.err(),
            _parent: Some(parent),
        }));
        Ok(())
    }

    fn file(&mut self, name: Vec<u8>, size: u64, meta: Meta) -> Result<(), Broken> {
        let (dir, name) = self.place(name);
        let label: Arc<str> = Self::label(&dir, &name).into();
        let offer = Offer { name, size, meta };
        let who = self.who.clone();
        let present = self
            .opened(&dir)
            .and_then(|folder| look(&folder, &offer, &who).map_err(|e| reason(&e)));
        let file = (Arc::clone(&label), size);
        let present = match present {
            Ok(present) => present,
            Err(why) => {
                self.is_lacking = true;
                self.report.refused(&label, size, &why);
                self.engine.answered(file, size, Answer::Refused);
                return self.line.push(&Message::Refused { why });
            }
        };
        let have = present.have(size);
        self.waiting.push_back(Waiting {
            dir,
            offer,
            present,
        });
        if let Some((has, hash)) = have {
            self.engine.answered(file, size, Answer::Have(has));
            self.line.push(&Message::Have { size: has, hash })
        } else {
            self.engine.answered(file, size, Answer::Want);
            self.line.push(&Message::Want)
        }
    }

    fn begin(&mut self, label: &Arc<str>, offset: u64) -> Result<(), Broken> {
        let Some(Waiting {
            dir,
            offer,
            present,
        }) = self.waiting.pop_front()
        else {
            return Err(Violation::Order.into());
        };
        self.report.begins(label, offset);
        let size = offer.size;
        let who = self.who.clone();
        let begun = self.opened(&dir).and_then(|folder| {
            Partial::begin(folder, offer, present, offset, &who).map_err(|e| reason(&e))
        });
        match begun {
            Ok(partial) => {
                self.coming = Some((Coming::Open(Box::new(partial)), dir));
                Ok(())
            }
            Err(why) => {
                self.coming = Some((Coming::Failed, dir));
                self.failed(label, size, &why)
            }
        }
    }

    fn failed(&mut self, label: &str, unsent: u64, why: &str) -> Result<(), Broken> {
        self.is_lacking = true;
        self.report.refused(label, unsent, why);
        self.line.push(&Message::Failed {
            why: why.to_owned(),
        })?;
        // The sender is to stop soon.
        self.line.flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let len = bytes.len() as u64;
        let ((label, size), at) = self.engine.bytes(len)?;
        let (label, size) = (Arc::clone(label), *size);
        self.bytes += len;
        if let Some(who) = &self.who {
            who.got();
        }
        if let Some((coming, _)) = &mut self.coming
            && let Coming::Open(partial) = coming
            && let Err(e) = partial.write(bytes)
        {
            let why = format!(
                "{}; {} of its {size} bytes are kept there, and the same command goes on behind them",
                reason(&e),
                partial.kept()
            );
            *coming = Coming::Failed;
            self.failed(&label, size - at, &why)?;
        }
        let now = Instant::now();
        if now - self.told.0 >= TELL {
            self.told = (now, self.bytes);
            self.line.push(&Message::Got { bytes: self.bytes })?;
            self.line.flush()?;
        }
        self.report.arrived(self.bytes);
        Ok(())
    }
}

/// Makes a folder, or takes the one that is there.
fn make(folder: &Folder, name: &[u8]) -> Result<(), String> {
    debug_assert!(
        is_name(name),
        "what came is checked, and what a person named too"
    );
    match folder.at(name).map_err(|e| reason(&e))? {
        Some(found) if found.kind == Kind::Folder => Ok(()),
        Some(found) if found.kind == Kind::Symlink => {
            Err("there is a symlink of this name, which is not followed".to_owned())
        }
        Some(_) => Err("there is a file of this name".to_owned()),
        None => folder.make(name).map_err(|e| reason(&e)),
    }
}
