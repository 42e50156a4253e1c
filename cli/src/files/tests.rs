//! Both ends of a transfer in one process, and ends that mean harm: whatever they say, nothing outside of the destination changes, and what is
//! remembered of it is little.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::destination::{self, Place};
use super::line::{Broken, Losable, Pump, line};
use super::receiver::Receiver;
use super::report::Report;
use super::sender::{Sender, Source};
use super::tree::{Folder, Links};
use super::wire::{Decoder, Item, Message, Meta, VERSION};

/// What was reported.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Report for Heard {
    fn problem(&self, is_error: bool, text: &str) {
        self.0.lock().unwrap().push(format!("{is_error} {text}"));
    }

    fn refused(&self, label: &str, _unsent: u64, why: &str) {
        self.problem(true, &format!("{label}: {why}"));
    }

    fn begins(&self, _label: &str, _present: u64) {}
    fn arrived(&self, _bytes: u64) {}
    fn total(&self, _files: u64, _bytes: u64) {}

    fn stored(&self, label: &str, _size: u64) {
        self.0.lock().unwrap().push(format!("stored {label}"));
    }
}

/// One end sees that the other is gone where it reads or writes.
impl Losable for tokio::io::DuplexStream {
    fn poll_lost(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

/// A folder `to` beside a file `secret`, with links that lead out.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    symlink("../secret", to.join("link")).unwrap();
    symlink("../outside", to.join("out")).unwrap();
    dir
}

/// Whether all beside `to` is as it was.
fn is_untouched(dir: &Path) -> bool {
    fs::read(dir.join("secret")).unwrap() == b"secret"
        && fs::read_dir(dir.join("outside")).unwrap().count() == 0
        && fs::read_dir(dir).unwrap().count() == 3
}

/// Has a receiver take these bytes, and gives what it reported, how it ended, and what it said.
fn received(to: &Path, wire: &[u8]) -> (Vec<String>, Result<(), String>, Vec<Message>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        let (mut line, pump) = line();
        let to = to.to_owned();
        let receiver = thread::spawn(move || {
            let root = Folder::open(&to).unwrap();
            let found = destination::find(Place::Below(&root), b"", true).unwrap();
            let heard = Heard::default();
            let ended = Receiver::new(&mut line, &heard, found, None).run();
            if let Err(Broken::Protocol(why)) = &ended {
                line.fail(why);
            }
            let ended = ended.map_err(|e| e.to_string());
            (heard.0.into_inner().unwrap(), ended)
        });
        let (mut back, mut to) = tokio::io::split(&mut theirs);
        let says = async {
            let _ = to.write_all(wire).await;
            let _ = to.shutdown().await;
        };
        let hears = async {
            let mut said = Vec::new();
            let _ = back.read_to_end(&mut said).await;
            said
        };
        let carries = async {
            let _ = pump.run(&mut ours, || {}).await;
            drop(ours);
        };
        let ((), said, ()) = tokio::join!(says, hears, carries);
        let (heard, ended) = receiver.join().unwrap();
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        decoder.feed(Bytes::from(said));
        while let Some(item) = decoder.next().unwrap() {
            if let Item::Message(message) = item {
                messages.push(message);
            }
        }
        (heard, ended, messages)
    })
}

fn file(name: &[u8], size: u64) -> Message {
    let meta = Meta {
        mode: 0o644,
        seconds: 1,
        nanos: 0,
    };
    Message::File {
        name: name.to_vec(),
        size,
        meta,
    }
}

fn folder(name: &[u8]) -> Message {
    let meta = Meta {
        mode: 0o755,
        seconds: 1,
        nanos: 0,
    };
    Message::Folder {
        name: name.to_vec(),
        meta,
    }
}

/// Messages as bytes, with the bytes of a file behind each `Data`.
fn wire(messages: &[Message]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        message.encode(&mut wire);
        if let Message::Data { len } = message {
            wire.resize(wire.len() + usize::try_from(*len).unwrap(), b'x');
        }
    }
    wire
}

fn hash_of(len: usize) -> [u8; 32] {
    *blake3::hash(&vec![b'x'; len]).as_bytes()
}

/// A whole file.
fn sent(name: &[u8], len: u64) -> Vec<Message> {
    let hash = hash_of(usize::try_from(len).unwrap());
    vec![
        file(name, len),
        Message::Start { offset: 0 },
        Message::Data { len },
        Message::End { hash },
    ]
}

#[test]
fn a_name_that_leads_elsewhere_ends_the_transfer_and_writes_nothing() {
    for name in [
        &b".."[..],
        b".",
        b"../secret",
        b"/etc/x",
        b"a/b",
        b"a\0b",
        b"",
    ] {
        for beneath in [false, true] {
            let dir = place();
            let mut messages = if beneath {
                vec![folder(b"sub")]
            } else {
                Vec::new()
            };
            messages.extend(sent(name, 3));
            let (heard, ended, said) = received(&dir.path().join("to"), &wire(&messages));
            assert!(
                ended.unwrap_err().contains("a name that is not one"),
                "{name:?}"
            );
            assert!(
                matches!(said.last(), Some(Message::Error { .. })),
                "{said:?}"
            );
            assert!(heard.is_empty());
            assert!(is_untouched(dir.path()));
        }
    }
    let dir = place();
    let messages = [folder(b".."), folder(b"outside")];
    assert!(
        received(&dir.path().join("to"), &wire(&messages))
            .1
            .is_err()
    );
}

#[test]
fn no_symlink_leads_out_and_a_link_is_replaced_and_not_written_through() {
    let dir = place();
    let mut messages = vec![folder(b"out")];
    messages.extend([file(b"f", 3), Message::Up]);
    messages.extend(sent(b"link", 3));
    messages.push(Message::Done);
    let (heard, ended, said) = received(&dir.path().join("to"), &wire(&messages));
    ended.unwrap();
    assert!(
        heard[0].starts_with("true out: there is a symlink of this name"),
        "{heard:?}"
    );
    assert!(
        matches!(&said[1], Message::Refused { why } if why.contains("symlink")),
        "{said:?}"
    );
    assert_eq!(heard.last().unwrap(), "stored link");
    assert!(is_untouched(dir.path()));
    assert_eq!(fs::read(dir.path().join("to/link")).unwrap(), b"xxx");
}

#[test]
fn a_wrong_hash_is_told_and_the_file_is_not_put_in_place() {
    let dir = place();
    let to = dir.path().join("to");
    fs::write(to.join("f"), "before").unwrap();
    let messages = [
        file(b"f", 3),
        Message::Start { offset: 0 },
        Message::Data { len: 3 },
        Message::End { hash: hash_of(4) },
        Message::Done,
    ];
    let (heard, ended, said) = received(&to, &wire(&messages));
    ended.unwrap();
    assert!(heard[0].contains("its BLAKE3 hash differs"), "{heard:?}");
    assert!(matches!(said[1], Message::Failed { .. }), "{said:?}");
    assert_eq!(fs::read(to.join("f")).unwrap(), b"before");
}

#[test]
fn what_is_declared_takes_neither_memory_nor_disk() {
    let dir = place();
    let to = dir.path().join("to");
    let messages = [
        file(b"huge", u64::MAX),
        Message::Start { offset: 0 },
        Message::Data { len: 10 },
        Message::Data { len: 10 },
    ];
    let (_, ended, _) = received(&to, &wire(&messages));
    ended.unwrap_err();
    let part = fs::metadata(to.join(".huge.cepa-part")).unwrap();
    assert_eq!(part.len(), 20);
    assert!(!to.join("huge").exists());
}

#[test]
fn endless_lists_end_the_transfer() {
    let dir = place();
    let to = dir.path().join("to");
    let files: Vec<Message> = (0..300)
        .map(|n| file(format!("{n}").as_bytes(), 1))
        .collect();
    let (_, ended, _) = received(&to, &wire(&files));
    assert!(ended.unwrap_err().contains("more files or folders at once"));
    let deep: Vec<Message> = (0..1100).map(|_| folder(b"d")).collect();
    let (_, ended, _) = received(&to, &wire(&deep));
    assert!(ended.unwrap_err().contains("more files or folders at once"));
    assert!(is_untouched(dir.path()));
}

#[test]
fn a_cut_at_any_byte_leaves_no_half_file() {
    let mut messages = sent(b"f", 40);
    messages.push(Message::Done);
    let whole = wire(&messages);
    for cut in 0..whole.len() {
        let dir = place();
        let to = dir.path().join("to");
        let (_, ended, _) = received(&to, &whole[..cut]);
        assert!(ended.is_err(), "{cut}");
        // The last byte is that of Done.
        if cut < whole.len() - 1 {
            assert!(!to.join("f").exists(), "{cut}");
        }
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let known: &[&[u8]] = &[
        b"f",
        b"g",
        b"sub",
        b"link",
        b"out",
        b"..",
        b".",
        b"",
        b"a/b",
        b"/",
        b"\0",
        b"secret",
        b".f.cepa-part",
        b"\xff",
    ];
    prop::sample::select(known).prop_map(<[u8]>::to_vec)
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => any_name().prop_map(|name| folder(&name)),
        2 => Just(Message::Up),
        4 => (any_name(), 0..6u64).prop_map(|(name, size)| file(&name, size)),
        4 => (0..3u64).prop_map(|offset| Message::Start { offset }),
        4 => (0..6u64).prop_map(|len| Message::Data { len }),
        4 => (0..6usize).prop_map(|len| Message::End { hash: hash_of(len) }),
        1 => Just(Message::Stop { why: "x".to_owned() }),
        1 => Just(Message::Done),
        1 => Just(Message::Want),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_sender_says_nothing_outside_changes(
        messages in prop::collection::vec(prop_oneof![
            3 => any_message().prop_map(|message| vec![message]),
            1 => (any_name(), 0..6u64).prop_map(|(name, len)| sent(&name, len)),
        ], 0..12),
    ) {
        let dir = place();
        let _ = received(&dir.path().join("to"), &wire(&messages.concat()));
        prop_assert!(is_untouched(dir.path()));
    }

    #[test]
    fn whatever_a_receiver_says_the_sender_ends(
        answers in prop::collection::vec(any::<u8>(), 0..200),
        messages in prop::collection::vec(prop_oneof![
            Just(Message::Want),
            (0..9u64).prop_map(|size| Message::Have { size, hash: hash_of(0) }),
            Just(Message::Refused { why: String::new() }),
            Just(Message::Stored),
            Just(Message::Failed { why: "no".to_owned() }),
            (0..9u64).prop_map(|bytes| Message::Got { bytes }),
            Just(Message::Done),
        ], 0..20),
    ) {
        let dir = place();
        for n in 0..5 {
            fs::write(dir.path().join(format!("to/sub/{n}")), "12345").unwrap();
        }
        let mut said = wire(&messages);
        said.extend(answers);
        sent_to(&dir.path().join("to"), &said);
    }
}

/// Has a sender hear these bytes, and checks that it ends.
fn sent_to(from: &Path, answers: &[u8]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        let (mut line, pump) = line();
        let root = Arc::new(Folder::open(from).unwrap());
        let sender = thread::spawn(move || {
            let source = Source {
                root,
                path: b"sub".to_vec(),
                links: Links::Inside,
                name: b"sub".to_vec(),
                label: "sub".to_owned(),
            };
            let heard = Heard::default();
            let _ = Sender::new(&mut line, &heard, vec![source], true).run();
        });
        let (mut back, mut to) = tokio::io::split(&mut theirs);
        let says = async {
            let _ = to.write_all(answers).await;
            let _ = to.shutdown().await;
        };
        let hears = async {
            let mut said = Vec::new();
            let _ = back.read_to_end(&mut said).await;
        };
        let carries = async {
            let _ = pump.run(&mut ours, || {}).await;
            drop(ours);
        };
        tokio::join!(says, hears, carries);
        sender.join().unwrap();
    });
}

#[test]
fn a_request_of_another_version_is_told_so() {
    let mut decoder = Decoder::default();
    decoder.feed(Bytes::from_static(&[1, VERSION + 1, 0, 0]));
    let e = decoder.next().unwrap_err().to_string();
    assert!(e.contains("use the same cepa at both ends"), "{e}");
}

/// The files that a sender announces to somebody who never answers.
/// A thread that sends the folder `sub`, and what carries it.
fn sends_sub(dir: &Path) -> (Pump, thread::JoinHandle<Result<(), Broken>>) {
    let (mut line, pump) = line();
    let source = Source {
        root: Arc::new(Folder::open(&dir.join("to")).unwrap()),
        path: b"sub".to_vec(),
        links: Links::Inside,
        name: b"sub".to_vec(),
        label: "sub".to_owned(),
    };
    let sender =
        thread::spawn(move || Sender::new(&mut line, &Heard::default(), vec![source], true).run());
    (pump, sender)
}

#[test]
fn files_are_announced_before_any_answer() {
    let dir = place();
    for n in 0..400 {
        fs::write(dir.path().join(format!("to/sub/{n}")), "").unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        let (pump, sender) = sends_sub(dir.path());
        let carries = tokio::spawn(async move { pump.run(&mut ours, || {}).await });
        let (mut decoder, mut files) = (Decoder::default(), 0);
        while files < super::engine::WINDOW {
            let mut piece = vec![0; 4096];
            let len = theirs.read(&mut piece).await.unwrap();
            assert!(len > 0);
            piece.truncate(len);
            decoder.feed(Bytes::from(piece));
            while let Some(item) = decoder.next().unwrap() {
                files += usize::from(matches!(item, Item::Message(Message::File { .. })));
            }
        }
        drop(theirs);
        assert!(matches!(sender.join().unwrap(), Err(Broken::Gone)));
        let _ = carries.await;
    });
}

#[test]
fn answers_that_are_not_owed_end_the_transfer_though_nobody_reads_its_bytes() {
    let dir = place();
    fs::write(dir.path().join("to/sub/big"), vec![1; 16 * 1024 * 1024]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut ours, theirs) = duplex(64 * 1024);
        let (pump, sender) = sends_sub(dir.path());
        let carries = tokio::spawn(async move { pump.run(&mut ours, || {}).await });
        let (mut read, mut to) = tokio::io::split(theirs);
        // Until the file is announced, and no further.
        let mut decoder = Decoder::default();
        'announced: loop {
            let mut piece = vec![0; 4096];
            let len = read.read(&mut piece).await.unwrap();
            piece.truncate(len);
            decoder.feed(Bytes::from(piece));
            while let Some(item) = decoder.next().unwrap() {
                if matches!(item, Item::Message(Message::File { .. })) {
                    break 'announced;
                }
            }
        }
        let flood = tokio::spawn(async move {
            let mut flood = wire(&[Message::Want]);
            while to.write_all(&flood).await.is_ok() {
                flood = wire(&vec![Message::Got { bytes: 0 }; 10_000]);
            }
        });
        let begun = std::time::Instant::now();
        while !sender.is_finished() && begun.elapsed().as_secs() < 60 {
            tokio::task::yield_now().await;
        }
        flood.abort();
        assert!(sender.is_finished());
        let ended = sender.join().unwrap();
        assert!(matches!(&ended, Err(Broken::Protocol(_))), "{ended:?}");
        carries.abort();
    });
}
