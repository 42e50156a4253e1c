//! What a peer says in a transfer of files (`cepa cp`): any bytes are messages or an error, whatever pieces they come in, and whatever follows
//! what, a file gets no more bytes than were announced, and few files and folders are remembered. The tool has no library, so its
//! sources are taken as they are.
#![no_main]

#[allow(dead_code)]
#[path = "../../cli/src/files/engine.rs"]
mod engine;
#[allow(dead_code)]
#[path = "../../cli/src/files/wire.rs"]
mod wire;

use bytes::Bytes;
use engine::{Answer, Receiving, Sending, Violation, is_name};
use libfuzzer_sys::fuzz_target;
use wire::{Decoder, Item, Message};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let step = usize::from(first % 64) + 1;
    let (mut decoder, mut receiving, mut sending) =
        (Decoder::default(), Receiving::default(), Sending::default());
    let mut sizes: Vec<u64> = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.feed(Bytes::copy_from_slice(piece));
        loop {
            let item = match decoder.next() {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Item::Message(message) = &item {
                let mut again = Vec::new();
                message.encode(&mut again);
                let mut decoder = Decoder::default();
                decoder.feed(Bytes::from(again));
                assert_eq!(decoder.next(), Ok(Some(Item::Message(message.clone()))));
            }
            // As a receiver, and where it is an answer, as a sender that announces what it may.
            while sending.has_room() {
                sending.announce((), 100);
                sending.sent(100);
            }
            if take(&mut receiving, &mut sending, &mut sizes, item).is_err() {
                return;
            }
        }
    }
});

fn take(
    receiving: &mut Receiving<usize>,
    sending: &mut Sending<()>,
    sizes: &mut Vec<u64>,
    item: Item,
) -> Result<(), Violation> {
    let message = match item {
        Item::Bytes(bytes) => {
            let (file, at) = receiving.bytes(bytes.len() as u64)?;
            assert!(at + bytes.len() as u64 <= sizes[*file]);
            return Ok(());
        }
        Item::Message(message) => message,
    };
    match message {
        Message::Folder { name, .. } => {
            receiving.folder(&name)?;
            assert!(name.is_empty() || is_name(&name));
        }
        Message::Up => receiving.up()?,
        Message::File { name, size, .. } => {
            receiving.file(&name)?;
            assert!(is_name(&name));
            receiving.answered(sizes.len(), size, Answer::Have(size / 2));
            sizes.push(size);
        }
        Message::Start { offset } => drop(receiving.start(offset)?),
        Message::Data { len } => receiving.data(len)?,
        Message::End { .. } => drop(receiving.end()?),
        Message::Stop { .. } => drop(receiving.stop()?),
        Message::Done => receiving.done()?,
        Message::Want => sending.wanted(None)?,
        Message::Have { size, hash } => sending.wanted(Some((size, hash)))?,
        Message::Refused { .. } => drop(sending.refused()?),
        Message::Stored | Message::Failed { .. } => {
            let _ = sending.begin();
            sending.result()?;
        }
        Message::Got { bytes } => drop(sending.got(bytes)?),
        Message::Problem { .. } => {
            sending.folder();
            sending.problem()?;
        }
        _ => {}
    }
    Ok(())
}
