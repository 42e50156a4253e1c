//! A file that is on its way into a folder. Until it is whole and its hash is right, its bytes are in a file of another name beside
//! it, `.NAME.cepa-part`; then that is renamed. So under its own name there is never half a file, and what was there before stays
//! until then.
//!
//! ```text
//! offered --+-- the file is there, with this size and time --> Have(all, hash)
//!           +-- a part of it is there, and nobody writes it -> Have(part, hash)
//!           +-- else ----------------------------------------> Want
//!
//! begun ----+-- behind what was there: the sender has found the same hash
//!           +-- at 0: a part that is not the beginning of this file is emptied
//! ```
//!
//! Who writes a part holds a lock on it (`flock`), which ends with its process. Another upload of the same file finds the
//! lock and takes the next name, `.NAME.cepa-part1`; so two never mix, and the one that is whole last stays.
//! A part is never taken for what it seems by its length: its hash goes to the sender, who compares it with its own file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use blake3::Hasher;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::holders::{Holding, Upload};
use super::tree::{Folder, Found, Kind, Links, of_open, set_meta};
use super::wire::{Hash, Meta, NAME_MAX};

/// Uploads of one file at once. Each has a file that may be as large as that.
const SLOTS: u32 = 8;

const PART: &str = ".cepa-part";

/// A name that is longer has its hash in the name of its part.
const LONG: usize = NAME_MAX - 1 - PART.len() - 1;

/// How much is read of a file at once.
pub(crate) const READ: usize = 256 * 1024;

/// Whether a file of this name is a part of another one.
pub(crate) fn is_part(name: &[u8]) -> bool {
    let bare = match name.split_last() {
        Some((last, bare)) if last.is_ascii_digit() => bare,
        _ => name,
    };
    name.first() == Some(&b'.') && bare.ends_with(PART.as_bytes())
}

/// What a part is called; slot 0 is also what stands beside a folder as long as a copy to that new name is not finished.
pub(crate) fn part_of(name: &[u8], slot: u32) -> Vec<u8> {
    let mut part = vec![b'.'];
    if name.len() > LONG {
        part.extend_from_slice(blake3::hash(name).to_hex().as_bytes());
    } else {
        part.extend_from_slice(name);
    }
    part.extend_from_slice(PART.as_bytes());
    if slot > 0 {
        part.extend_from_slice(slot.to_string().as_bytes());
    }
    part
}

/// What was announced.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) name: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) meta: Meta,
}

/// What there is of it.
#[derive(Debug)]
pub(crate) enum Present {
    Nothing,
    /// The beginning; with what its hash is made of.
    Part(u64, Box<Hasher>),
    /// All of it, it seems; which file that is, as it is not kept open until its turn comes.
    Whole((u64, u64), Hash),
}

impl Present {
    pub(crate) fn have(&self, size: u64) -> Option<(u64, Hash)> {
        match self {
            Self::Nothing => None,
            Self::Part(len, hasher) => Some((*len, *hasher.finalize().as_bytes())),
            Self::Whole(_, hash) => Some((size, *hash)),
        }
    }
}

fn other(why: &str) -> io::Error {
    io::Error::other(why)
}

/// Hashes the next `len` bytes of a file; an error where there are fewer, or nobody waits for it any more.
pub(crate) fn hash_on(
    file: &mut File,
    hasher: &mut Hasher,
    len: u64,
    who: Option<&Upload>,
) -> io::Result<()> {
    let mut buf = vec![0; READ];
    let mut left = len;
    while left > 0 {
        if who.is_some_and(Upload::is_closed) {
            return Err(other("the transfer was cut off"));
        }
        let most = usize::try_from(left).unwrap_or(READ).min(READ);
        let read = file.read(buf.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(buf.get(..read).unwrap_or_default());
        left -= read as u64;
    }
    Ok(())
}

/// Who writes parts; at a client nobody else can be asked.
pub(crate) type Who = Option<Arc<Upload>>;

/// Locks a part, if nobody else has; whether it is still the file of that name.
fn locked(folder: &Folder, name: &[u8], file: &File, who: &Who) -> io::Result<bool> {
    let lock = || flock(file, FlockOperation::NonBlockingLockExclusive);
    match lock() {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let id = of_open(file)?.id;
            let is_free = who.as_ref().is_some_and(|who| who.takes_over(id));
            if !is_free || lock().is_err() {
                return Ok(false);
            }
        }
        Err(e) => return Err(e.into()),
    }
    // Who held it may have put it into its place meanwhile.
    let there = folder.at(name)?;
    Ok(there.is_some_and(|there| of_open(file).is_ok_and(|found| found.id == there.id)))
}

/// What there is of a file that is announced; an error: it can't be put there.
pub(crate) fn look(folder: &Folder, offer: &Offer, who: &Who) -> io::Result<Present> {
    if is_part(&offer.name) {
        return Err(other("its name is that of a part of another file"));
    }
    let there = folder.at(&offer.name)?;
    match there {
        Some(Found {
            kind: Kind::Folder, ..
        }) => return Err(other("there is a folder of this name")),
        Some(Found {
            kind: Kind::Special,
            ..
        }) => {
            return Err(other("there is a device, pipe or socket of this name"));
        }
        Some(found) if found.kind == Kind::File && is_same(&found, offer) => {
            if let Ok(whole) = whole(folder, offer, who) {
                return Ok(whole);
            }
        }
        _ => {}
    }
    let name = part_of(&offer.name, 0);
    match folder.at(&name)? {
        Some(found) if found.kind == Kind::File && found.size > 0 => {}
        _ => return Ok(Present::Nothing),
    }
    let mut part = folder.writable(&name, false)?;
    if !locked(folder, &name, &part, who)? {
        return Ok(Present::Nothing);
    }
    let mut hasher = Box::new(Hasher::new());
    let len = of_open(&part)?.size.min(offer.size);
    hash_on(&mut part, &mut hasher, len, who.as_deref())?;
    Ok(Present::Part(len, hasher))
}

/// Whether it has the size and the time of what is announced. A file that was put in its place has.
fn is_same(found: &Found, offer: &Offer) -> bool {
    let time = |meta: &Meta| (meta.seconds, meta.nanos);
    found.size == offer.size && time(&found.meta) == time(&offer.meta)
}

fn whole(folder: &Folder, offer: &Offer, who: &Who) -> io::Result<Present> {
    let (mut file, found) = folder.file(&offer.name, Links::Never)?;
    if found.kind != Kind::File || !is_same(&found, offer) {
        return Ok(Present::Nothing);
    }
    let mut hasher = Hasher::new();
    hash_on(&mut file, &mut hasher, offer.size, who.as_deref())?;
    Ok(Present::Whole(found.id, *hasher.finalize().as_bytes()))
}

/// The file that was found whole, where it is still that.
fn reopen(folder: &Folder, offer: &Offer, id: (u64, u64)) -> io::Result<File> {
    let changed = || other("it was changed here meanwhile; the same command sends it anew");
    let (file, found) = folder
        .file(&offer.name, Links::Never)
        .map_err(|_| changed())?;
    if found.id != id || found.kind != Kind::File || !is_same(&found, offer) {
        return Err(changed());
    }
    Ok(file)
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Partial {
    folder: Arc<Folder>,
    offer: Offer,
    /// Its name until it is whole; `None`: it is in its place already.
    part: Option<Vec<u8>>,
    file: File,
    hasher: Box<Hasher>,
    // Behind the file: whoever waits for its end finds the lock free.
    _holding: Option<Holding>,
}

impl Partial {
    /// Begins at this place: 0, or behind what is present.
    pub(crate) fn begin(
        folder: Arc<Folder>,
        offer: Offer,
        present: Present,
        offset: u64,
        who: &Who,
    ) -> io::Result<Self> {
        let (part, mut file, hasher) = match present {
            Present::Whole(id, _) if offset == offer.size => {
                let mut hasher = Box::new(Hasher::new());
                let mut file = reopen(&folder, &offer, id)?;
                hash_on(&mut file, &mut hasher, offer.size, who.as_deref())?;
                (None, file, hasher)
            }
            Present::Part(len, hasher) if offset == len && len > 0 => {
                let name = part_of(&offer.name, 0);
                let file = folder.writable(&name, false)?;
                if !locked(&folder, &name, &file, who)? {
                    return Err(other("somebody else is sending the same file; try again"));
                }
                file.set_len(len)?;
                (Some(name), file, hasher)
            }
            _ => {
                let (name, file) = free(&folder, &offer.name, who)?;
                file.set_len(0)?;
                (Some(name), file, Box::default())
            }
        };
        file.seek(SeekFrom::Start(offset))?;
        let holding = match who {
            Some(who) if part.is_some() => Some(who.holds(of_open(&file)?.id)),
            _ => None,
        };
        Ok(Self {
            folder,
            offer,
            part,
            file,
            hasher,
            _holding: holding,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// How much of it is on the disk.
    pub(crate) fn kept(&self) -> u64 {
        of_open(&self.file).map_or(0, |found| found.size)
    }

    /// Puts it in its place, where it has the hash that its sender has read; whether it had not been there before.
    pub(crate) fn finish(self, hash: &Hash) -> io::Result<bool> {
        if self.hasher.finalize() != blake3::Hash::from_bytes(*hash) {
            if let Some(part) = &self.part {
                // It is of no use to anybody.
                let _ = self.folder.remove(part);
            }
            return Err(other(
                "what arrived is not what was read there (its BLAKE3 hash differs); it is not kept",
            ));
        }
        set_meta(&self.file, self.offer.meta)?;
        let Some(part) = &self.part else {
            return Ok(false);
        };
        self.folder.rename(part, &self.offer.name)?;
        Ok(true)
    }
}

/// A part that nobody writes.
fn free(folder: &Folder, name: &[u8], who: &Who) -> io::Result<(Vec<u8>, File)> {
    let mut slot = 0;
    let mut gone = 0;
    while slot < SLOTS {
        let part = part_of(name, slot);
        let file = folder.writable(&part, true)?;
        if locked(folder, &part, &file, who)? {
            return Ok((part, file));
        }
        // What was locked and is in its place by now has left its name free.
        let there = folder.at(&part)?;
        let is_there = there.is_some_and(|t| of_open(&file).is_ok_and(|f| f.id == t.id));
        if is_there || gone == 100 {
            slot += 1;
        } else {
            gone += 1;
        }
    }
    Err(other("too many are sending this file at the moment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Arc<Folder>) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(dir.path()).unwrap());
        (dir, folder)
    }

    fn offer(name: &str, bytes: &[u8]) -> Offer {
        Offer {
            name: name.into(),
            size: bytes.len() as u64,
            meta: Meta {
                mode: 0o640,
                seconds: 1_000_000_000,
                nanos: 5,
            },
        }
    }

    fn hash(bytes: &[u8]) -> Hash {
        *blake3::hash(bytes).as_bytes()
    }

    fn begin(folder: &Arc<Folder>, offer: &Offer, offset: u64) -> io::Result<Partial> {
        let present = look(folder, offer, &None)?;
        Partial::begin(Arc::clone(folder), offer.clone(), present, offset, &None)
    }

    #[test]
    fn a_part_is_gone_on_with_and_a_whole_file_is_known() {
        let (dir, folder) = place();
        let of = offer("a", b"hello, world");
        let mut part = begin(&folder, &of, 0).unwrap();
        part.write(b"hello").unwrap();
        drop(part);
        assert!(!dir.path().join("a").exists());
        let present = look(&folder, &of, &None).unwrap();
        assert_eq!(present.have(12), Some((5, hash(b"hello"))));
        let mut part = begin(&folder, &of, 5).unwrap();
        part.write(b", world").unwrap();
        assert!(part.finish(&hash(b"hello, world")).unwrap());
        assert_eq!(
            std::fs::read(dir.path().join("a")).unwrap(),
            b"hello, world"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let present = look(&folder, &of, &None).unwrap();
        assert_eq!(present.have(12), Some((12, hash(b"hello, world"))));
        assert!(
            !begin(&folder, &of, 12)
                .unwrap()
                .finish(&hash(b"hello, world"))
                .unwrap()
        );
    }

    #[test]
    fn a_wrong_hash_leaves_what_was_there() {
        let (dir, folder) = place();
        std::fs::write(dir.path().join("a"), "before").unwrap();
        let mut part = begin(&folder, &offer("a", b"12345"), 0).unwrap();
        part.write(b"12346").unwrap();
        let e = part.finish(&hash(b"12345")).unwrap_err();
        assert!(e.to_string().contains("hash"), "{e}");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_whole_file_that_another_one_replaces_meanwhile_is_not_taken_for_it() {
        let (dir, folder) = place();
        let of = offer("a", b"12345");
        let mut part = begin(&folder, &of, 0).unwrap();
        part.write(b"12345").unwrap();
        part.finish(&hash(b"12345")).unwrap();
        let present = look(&folder, &of, &None).unwrap();
        assert_eq!(present.have(5), Some((5, hash(b"12345"))));
        // Of the same size and time, and another file.
        std::fs::write(dir.path().join("b"), "54321").unwrap();
        let time = std::fs::metadata(dir.path().join("a")).unwrap().modified();
        let other = File::options().write(true).open(dir.path().join("b"));
        other.unwrap().set_modified(time.unwrap()).unwrap();
        std::fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
        let e = Partial::begin(folder, of, present, 5, &None).unwrap_err();
        assert!(e.to_string().contains("changed here meanwhile"), "{e}");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"54321");
    }

    #[test]
    fn two_that_write_one_file_do_not_mix() {
        let (dir, folder) = place();
        let of = offer("a", b"1111");
        let mut one = begin(&folder, &of, 0).unwrap();
        one.write(b"11").unwrap();
        let mut other = begin(&folder, &of, 0).unwrap();
        other.write(b"2222").unwrap();
        one.write(b"11").unwrap();
        assert!(one.finish(&hash(b"1111")).unwrap());
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"1111");
        assert!(other.finish(&hash(b"2222")).unwrap());
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"2222");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_name_of_a_part_is_never_too_long_and_no_file_takes_it() {
        let (_dir, folder) = place();
        for len in [1, LONG, LONG + 1, NAME_MAX] {
            let name = "x".repeat(len);
            for slot in [0, SLOTS - 1] {
                let part = part_of(name.as_bytes(), slot);
                assert!(part.len() <= NAME_MAX && is_part(&part), "{len}");
                let taken = offer(std::str::from_utf8(&part).unwrap(), b"");
                assert!(look(&folder, &taken, &None).is_err());
            }
            assert!(!is_part(name.as_bytes()));
        }
    }
}
