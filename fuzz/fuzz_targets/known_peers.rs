//! The known-peers file is edited by people, and cut by full disks. Whatever the bytes: nothing is
//! dropped, a change touches its own line alone, and what is written is read back.
#![no_main]

use cepa::identity::{KnownPeer, KnownPeers, PeerId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let known = KnownPeers::parse(text);
    assert_eq!(known.to_bytes(), text, "every byte is kept");
    let lines = text.split_inclusive(|byte| *byte == b'\n').count();
    let (peers, damaged) = (known.peers().count(), known.damaged().count());
    assert!(peers + damaged <= lines);
    for line in known.damaged() {
        assert!((1..=lines).contains(&line.number));
        assert!(!line.problem.to_string().contains('\n'));
    }
    for peer in known.peers() {
        let mut alone = KnownPeers::default();
        // The print of a peer may be longer than its line was, by what is escaped.
        if alone.add(peer.clone()).is_ok() {
            let again = KnownPeers::parse(&alone.to_bytes());
            assert_eq!(again.damaged().count(), 0);
            assert_eq!(again.named(peer.name()), Some(peer));
        }
    }
    let mut changed = known.clone();
    let name = changed.free_name("tcp:host:1");
    let id = PeerId::from_bytes([7; 32]);
    changed
        .add(KnownPeer::new(&name, id).expect("a free name is a name"))
        .expect("and is free");
    let bytes = changed.to_bytes();
    assert!(bytes.starts_with(text), "what was there stays");
    let again = KnownPeers::parse(&bytes);
    assert_eq!(
        (again.peers().count(), again.damaged().count()),
        (peers + 1, damaged)
    );
    changed
        .change(&name, |peer| peer.add_place("a # b\n%"))
        .expect("it is there");
    let again = KnownPeers::parse(&changed.to_bytes());
    assert_eq!(again, changed, "what is written is what is read");
    changed.remove(&name).expect("it is there");
    let end: &[u8] = if text.is_empty() || text.ends_with(b"\n") {
        b""
    } else {
        b"\n"
    };
    assert_eq!(changed.to_bytes(), [text, end].concat());
});
