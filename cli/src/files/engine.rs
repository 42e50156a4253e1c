//! What may follow what in a transfer of files, for both ends; no bytes are read or written here.
//!
//! ```text
//! sender                                                     receiver
//!   Folder, File …   announced, at most WINDOW ahead  ------->
//!                    <------- Want, Have, Refused              one for each File, in their order
//!   [Start] Data … End, or Stop   of each that is wanted ---->
//!                    <------- Stored, Failed                   one for each of those, in their order
//!   Done             ---------------------------------------->
//!                    <------- Done                             all is in its place
//! ```
//!
//! So a file costs no round trip: there are always others announced behind it. Whatever the other end says out of this order
//! ends the transfer. What it can make this end remember is [`WINDOW`] files and [`DEPTH`] folders.

use std::collections::VecDeque;
use std::fmt;

/// Files that are announced and have no result yet: enough for a path with a round trip of half a second to carry 500 files in
/// one, and few enough to remember.
pub(crate) const WINDOW: usize = 256;

/// Folders in each other. Their names alone make a path that most systems refuse.
pub(crate) const DEPTH: usize = 1000;

/// What the other end did that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A name that is none, or leads elsewhere.
    Name,
    /// More files at once, or deeper folders, than there may be.
    TooMany,
    /// It came at the wrong place.
    Order,
    /// Not the bytes that were announced.
    Size,
    /// Something that nobody asked for, or something once more.
    NotAsked,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the peer sent a name that is not one of a file in its folder (empty, `.`, `..`, or with / or a zero byte)",
            Self::TooMany => "the peer sent more files or folders at once than there may be",
            Self::Order => "the peer sent a message that does not belong where it came",
            Self::Size => "the peer sent other bytes of a file than it had announced",
            Self::NotAsked => "the peer sent something that was not asked for, and nothing of that is written",
        })
    }
}

/// Whether it is the name of something in a folder, and of nothing else.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// What a receiver answers to a file that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Want,
    /// So much of it is there.
    Have(u64),
    Refused,
}

/// A file whose bytes are coming.
#[derive(Debug)]
struct Coming<T> {
    file: T,
    size: u64,
    at: u64,
}

/// The receiver's end; `T` is what it remembers of a file.
#[derive(Debug)]
pub(crate) struct Receiving<T> {
    depth: usize,
    asked: Option<Asked>,
    /// Announced, wanted, and not begun.
    waiting: VecDeque<(T, u64, Answer)>,
    coming: Option<Coming<T>>,
    /// `Data` has said that so much comes.
    data: u64,
    done: bool,
}

impl<T> Default for Receiving<T> {
    fn default() -> Self {
        Self {
            depth: 0,
            asked: None,
            waiting: VecDeque::new(),
            coming: None,
            data: 0,
            done: false,
        }
    }
}

/// What this end has asked for, each by the name under which it has to come; none: what is in a folder, and so a folder without a name.
///
/// Each comes once, in their order. What else the sender calls a file or folder is where its owner is, and nobody there wants it.
#[derive(Debug)]
struct Asked {
    owed: VecDeque<Vec<u8>>,
    /// Others came behind these.
    missing: Vec<Vec<u8>>,
}

impl Asked {
    fn came(&mut self, name: &[u8]) -> Result<(), Violation> {
        let at = self.owed.iter().position(|owed| owed == name);
        self.missing
            .extend(self.owed.drain(..at.ok_or(Violation::NotAsked)?));
        self.owed.pop_front();
        Ok(())
    }
}

impl<T> Receiving<T> {
    /// Only these are taken, each once.
    pub(crate) fn asking(names: Vec<Vec<u8>>) -> Self {
        Self {
            asked: Some(Asked {
                owed: names.into(),
                missing: Vec::new(),
            }),
            ..Self::default()
        }
    }

    /// What was asked for and has not come.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &[u8]> {
        self.asked
            .iter()
            .flat_map(|asked| asked.missing.iter().chain(&asked.owed))
            .map(Vec::as_slice)
    }

    /// Something comes that is in no folder of the transfer.
    fn top(&mut self, name: &[u8]) -> Result<(), Violation> {
        match &mut self.asked {
            Some(asked) if self.depth == 0 => asked.came(name),
            _ => Ok(()),
        }
    }

    /// Whether what comes next is in no folder of the transfer.
    pub(crate) fn is_at_top(&self) -> bool {
        self.depth == 0
    }

    fn in_order(&self, fine: bool) -> Result<(), Violation> {
        (fine && !self.done && self.data == 0)
            .then_some(())
            .ok_or(Violation::Order)
    }

    /// A folder came. One without a name is the destination itself.
    pub(crate) fn folder(&mut self, name: &[u8]) -> Result<(), Violation> {
        self.in_order(true)?;
        let is_destination = name.is_empty() && self.depth == 0;
        if !is_destination && !is_name(name) {
            return Err(Violation::Name);
        }
        if self.depth == DEPTH {
            return Err(Violation::TooMany);
        }
        self.top(name)?;
        self.depth += 1;
        Ok(())
    }

    /// A folder ended.
    pub(crate) fn up(&mut self) -> Result<(), Violation> {
        self.in_order(self.depth > 0)?;
        self.depth -= 1;
        Ok(())
    }

    /// A file was announced: to be told of it before [`answered`](Self::answered).
    pub(crate) fn file(&mut self, name: &[u8]) -> Result<(), Violation> {
        self.in_order(true)?;
        if !is_name(name) {
            return Err(Violation::Name);
        }
        if self.waiting.len() + usize::from(self.coming.is_some()) >= WINDOW {
            return Err(Violation::TooMany);
        }
        self.top(name)
    }

    /// What was answered to it.
    pub(crate) fn answered(&mut self, file: T, size: u64, answer: Answer) {
        if answer != Answer::Refused {
            self.waiting.push_back((file, size, answer));
        }
    }

    /// The next file begins here. Gives whether it goes on behind what is there.
    pub(crate) fn start(&mut self, offset: u64) -> Result<&mut T, Violation> {
        self.in_order(self.coming.is_none())?;
        let (file, size, answer) = self.waiting.pop_front().ok_or(Violation::Order)?;
        if offset != 0 && answer != Answer::Have(offset) {
            return Err(Violation::Order);
        }
        let coming = Coming {
            file,
            size,
            at: offset,
        };
        Ok(&mut self.coming.insert(coming).file)
    }

    /// Bytes are announced.
    pub(crate) fn data(&mut self, len: u64) -> Result<(), Violation> {
        self.in_order(self.coming.is_some())?;
        let left = self
            .coming
            .as_ref()
            .map_or(0, |coming| coming.size - coming.at);
        if len > left {
            return Err(Violation::Size);
        }
        self.data = len;
        Ok(())
    }

    /// Bytes came, of those that were announced. Gives their file and their place in it.
    pub(crate) fn bytes(&mut self, len: u64) -> Result<(&mut T, u64), Violation> {
        let coming = self.coming.as_mut().ok_or(Violation::Order)?;
        self.data = self.data.checked_sub(len).ok_or(Violation::Size)?;
        let at = coming.at;
        coming.at += len;
        Ok((&mut coming.file, at))
    }

    /// The file has come whole.
    pub(crate) fn end(&mut self) -> Result<T, Violation> {
        self.in_order(self.coming.is_some())?;
        let coming = self.coming.take().ok_or(Violation::Order)?;
        if coming.at != coming.size {
            return Err(Violation::Size);
        }
        Ok(coming.file)
    }

    /// The file broke off, or does not come at all.
    pub(crate) fn stop(&mut self) -> Result<T, Violation> {
        self.in_order(true)?;
        match self.coming.take() {
            Some(coming) => Ok(coming.file),
            None => self
                .waiting
                .pop_front()
                .map(|it| it.0)
                .ok_or(Violation::Order),
        }
    }

    /// That was all.
    pub(crate) fn done(&mut self) -> Result<(), Violation> {
        self.in_order(self.depth == 0 && self.waiting.is_empty() && self.coming.is_none())?;
        self.done = true;
        Ok(())
    }
}

/// So many bytes that a receiver has of a file, and their hash.
pub(crate) type Has = (u64, [u8; 32]);

/// The sender's end; `T` is what it remembers of a file.
#[derive(Debug)]
pub(crate) struct Sending<T> {
    /// Announced, and not answered.
    announced: VecDeque<(T, u64)>,
    /// Wanted, and not begun; with what the receiver has of it.
    wanted: VecDeque<(T, Option<Has>)>,
    /// Begun, and without a result.
    sent: VecDeque<T>,
    /// So many bytes of files were sent, and so many have arrived.
    bytes: u64,
    got: u64,
    /// Folders that were announced and have had no problem.
    folders: u64,
}

impl<T> Default for Sending<T> {
    fn default() -> Self {
        Self {
            announced: VecDeque::new(),
            wanted: VecDeque::new(),
            sent: VecDeque::new(),
            bytes: 0,
            got: 0,
            folders: 0,
        }
    }
}

impl<T> Sending<T> {
    /// Whether one more file may be announced.
    pub(crate) fn has_room(&self) -> bool {
        self.announced.len() + self.wanted.len() + self.sent.len() < WINDOW
    }

    /// Whether everything has its result.
    pub(crate) fn is_idle(&self) -> bool {
        self.announced.is_empty() && self.wanted.is_empty() && self.sent.is_empty()
    }

    pub(crate) fn announce(&mut self, file: T, size: u64) {
        self.announced.push_back((file, size));
    }

    /// It is wanted; `have`: the receiver has so much of it, with this hash.
    pub(crate) fn wanted(&mut self, have: Option<Has>) -> Result<(), Violation> {
        let (file, size) = self.announced.pop_front().ok_or(Violation::Order)?;
        if have.is_some_and(|(has, _)| has > size) {
            return Err(Violation::Size);
        }
        self.wanted.push_back((file, have));
        Ok(())
    }

    /// It is not wanted.
    pub(crate) fn refused(&mut self) -> Result<T, Violation> {
        let refused = self.announced.pop_front();
        refused.map(|it| it.0).ok_or(Violation::Order)
    }

    /// The next file to send. It counts as sent from now on: a result may come at any time.
    pub(crate) fn begin(&mut self) -> Option<(T, Option<Has>)>
    where
        T: Clone,
    {
        let (file, have) = self.wanted.pop_front()?;
        self.sent.push_back(file.clone());
        Some((file, have))
    }

    /// So many more bytes were sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// A file has its result. Gives the file, and whether it was the last one that was begun.
    pub(crate) fn result(&mut self) -> Result<(T, bool), Violation> {
        let file = self.sent.pop_front().ok_or(Violation::Order)?;
        Ok((file, self.sent.is_empty()))
    }

    /// So many bytes have arrived, by the receiver's word: more than it said before, for who says the same again and again would keep
    /// this end busy.
    pub(crate) fn got(&mut self, bytes: u64) -> Result<u64, Violation> {
        if bytes <= self.got {
            return Err(Violation::Order);
        }
        if bytes > self.bytes {
            return Err(Violation::Size);
        }
        self.got = bytes;
        Ok(bytes)
    }

    /// A folder was announced.
    pub(crate) fn folder(&mut self) {
        self.folders += 1;
    }

    /// The receiver has a problem with one of them.
    pub(crate) fn problem(&mut self) -> Result<(), Violation> {
        self.folders = self.folders.checked_sub(1).ok_or(Violation::Order)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_in_its_folder_is_a_name() {
        for good in [
            &b"a"[..],
            b"...",
            b".a",
            b"a b",
            b"\xff",
            b"-",
            b"a\\b",
            b"\n",
        ] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"/",
            b"/etc",
            b"a/b",
            b"../a",
            b"a\0",
            b"\0",
        ] {
            assert!(!is_name(bad), "{bad:?}");
            let mut receiving = Receiving::<()>::default();
            receiving.folder(b"d").unwrap();
            assert_eq!(receiving.folder(bad), Err(Violation::Name), "{bad:?}");
            assert_eq!(receiving.file(bad), Err(Violation::Name), "{bad:?}");
        }
        let mut receiving = Receiving::<()>::default();
        assert_eq!(receiving.folder(b""), Ok(()));
        assert_eq!(receiving.folder(b""), Err(Violation::Name));
    }

    #[test]
    fn files_and_folders_at_once_have_a_bound() {
        let mut receiving = Receiving::default();
        for _ in 0..WINDOW {
            receiving.file(b"a").unwrap();
            receiving.answered((), 0, Answer::Want);
        }
        assert_eq!(receiving.file(b"a"), Err(Violation::TooMany));
        let mut receiving = Receiving::<()>::default();
        for _ in 0..DEPTH {
            receiving.folder(b"a").unwrap();
        }
        assert_eq!(receiving.folder(b"a"), Err(Violation::TooMany));
    }

    #[test]
    fn what_was_asked_for_comes_once_and_nothing_else_does() {
        let asking = |names: &[&str]| {
            let names = names.iter().map(|name| name.as_bytes().to_vec());
            Receiving::<()>::asking(names.collect())
        };
        let missing = |receiving: &Receiving<()>| -> Vec<Vec<u8>> {
            receiving.missing().map(<[u8]>::to_vec).collect()
        };
        let mut one = asking(&["f"]);
        assert_eq!(one.file(b"g"), Err(Violation::NotAsked));
        assert_eq!(one.folder(b""), Err(Violation::NotAsked));
        assert_eq!(missing(&one), [b"f"]);
        one.folder(b"f").unwrap();
        // Below it all names are its sender's.
        one.file(b"g").unwrap();
        one.folder(b"h").unwrap();
        one.up().unwrap();
        one.up().unwrap();
        assert_eq!(one.file(b"f"), Err(Violation::NotAsked));
        assert!(missing(&one).is_empty());
        let mut all = asking(&["a", "", "c", "a"]);
        all.folder(b"").unwrap();
        all.up().unwrap();
        all.file(b"a").unwrap();
        assert_eq!(all.file(b"c"), Err(Violation::NotAsked));
        assert_eq!(missing(&all), [b"a", b"c"]);
    }

    #[test]
    fn a_file_is_no_longer_and_no_shorter_than_it_was_announced() {
        let mut receiving = Receiving::default();
        receiving.file(b"a").unwrap();
        receiving.answered((), 5, Answer::Have(3));
        assert_eq!(receiving.start(2), Err(Violation::Order));
        receiving.answered((), 5, Answer::Have(3));
        receiving.start(3).unwrap();
        assert_eq!(receiving.data(3), Err(Violation::Size));
        receiving.data(2).unwrap();
        assert_eq!(receiving.end(), Err(Violation::Order));
        assert_eq!(receiving.bytes(1).unwrap().1, 3);
        assert_eq!(receiving.bytes(2), Err(Violation::Size));
    }

    #[test]
    fn a_receiver_says_nothing_twice_and_nothing_that_is_not_owed() {
        let mut sending = Sending::<()>::default();
        assert_eq!(sending.got(0), Err(Violation::Order));
        assert_eq!(sending.problem(), Err(Violation::Order));
        assert_eq!(sending.wanted(None), Err(Violation::Order));
        assert_eq!(sending.result(), Err(Violation::Order));
        sending.sent(10);
        assert_eq!(sending.got(11), Err(Violation::Size));
        assert_eq!(sending.got(5), Ok(5));
        assert_eq!(sending.got(5), Err(Violation::Order));
        sending.folder();
        assert_eq!(sending.problem(), Ok(()));
        assert_eq!(sending.problem(), Err(Violation::Order));
        sending.announce((), 3);
        assert_eq!(sending.wanted(Some((4, [0; 32]))), Err(Violation::Size));
    }

    /// What an end does next.
    #[derive(Clone, Copy, Debug)]
    enum Do {
        Announce(u8),
        Answer(u8),
        Send,
        Finish,
    }

    fn doing() -> impl Strategy<Value = Do> {
        prop_oneof![
            any::<u8>().prop_map(Do::Announce),
            any::<u8>().prop_map(Do::Answer),
            Just(Do::Send),
            Just(Do::Finish),
        ]
    }

    proptest! {
        /// Two ends that keep to the order agree on which file a message is about, however their messages interleave.
        #[test]
        fn both_ends_mean_the_same_file(doings in prop::collection::vec(doing(), 0..400)) {
            let (mut sending, mut receiving) = (Sending::default(), Receiving::default());
            let (mut offers, mut results) = (VecDeque::new(), VecDeque::new());
            let mut next = 0u32;
            for doing in doings {
                match doing {
                    Do::Announce(size) if sending.has_room() => {
                        next += 1;
                        sending.announce((next, u64::from(size)), u64::from(size));
                        receiving.file(b"x").unwrap();
                        offers.push_back((next, u64::from(size)));
                    }
                    Do::Answer(how) => {
                        let Some((id, size)) = offers.pop_front() else { continue };
                        let have = u64::from(how).min(size);
                        let answer = match how % 3 {
                            0 => Answer::Want,
                            1 => Answer::Have(have),
                            _ => Answer::Refused,
                        };
                        receiving.answered(id, size, answer);
                        match answer {
                            Answer::Want => sending.wanted(None).unwrap(),
                            Answer::Have(has) => sending.wanted(Some((has, [0; 32]))).unwrap(),
                            Answer::Refused => prop_assert_eq!(sending.refused().unwrap().0, id),
                        }
                    }
                    Do::Send => {
                        let Some(((id, size), have)) = sending.begin() else { continue };
                        let offset = have.map_or(0, |(has, _)| has);
                        prop_assert_eq!(*receiving.start(offset).unwrap(), id);
                        receiving.data(size - offset).unwrap();
                        prop_assert_eq!(receiving.bytes(size - offset).unwrap(), (&mut id.clone(), offset));
                        prop_assert_eq!(receiving.end().unwrap(), id);
                        results.push_back(id);
                    }
                    Do::Finish => {
                        let Some(id) = results.pop_front() else { continue };
                        prop_assert_eq!(sending.result().unwrap().0.0, id);
                    }
                    Do::Announce(_) => {}
                }
            }
        }

        /// A sender that says anything never gets more bytes into a file than it announced.
        #[test]
        fn no_order_of_messages_overfills_a_file(steps in prop::collection::vec((0..8u8, 0..12u64), 0..300)) {
            let mut receiving = Receiving::default();
            let mut sizes = Vec::new();
            for (step, n) in steps {
                let _ = match step {
                    0 => receiving.folder(b"d"),
                    1 => receiving.up(),
                    2 => receiving.file(b"f").map(|()| {
                        receiving.answered(sizes.len(), n, Answer::Have(n / 2));
                        sizes.push(n);
                    }),
                    3 => receiving.start(n).map(drop),
                    4 => receiving.data(n),
                    5 => receiving.bytes(n).map(|(file, at)| assert!(at + n <= sizes[*file])),
                    6 => receiving.end().map(drop),
                    _ => receiving.stop().map(drop),
                };
            }
        }
    }
}
