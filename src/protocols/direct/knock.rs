//! What two ends say to each other on UDP before either begins a handshake of QUIC, whose first packet has 1,200 bytes: so an address at
//! which the peer is not gets a few small datagrams and nothing else. The codec, without IO; docs/PROTOCOL.md has the table.
//!
//! ```text
//!   knock     00 random of the sender for this address (8) · word of the receiver (8)
//!   answer    01 the same random (8) · word of the sender of the knock (8)
//! ```
//!
//! Each end has told its word to the other one in their session. A knock with another word is not answered; an answer that has the own
//! word shows that the peer gets what is sent to the address, since nobody else knows both.

use std::net::SocketAddr;

use cepa_transports::KNOCK;

/// Of an end, for an attempt.
pub(super) type Word = [u8; 8];

const ASKS: u8 = 0;
const ANSWERS: u8 = 1;

/// The words of both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) ours: Word,
    pub(super) theirs: Word,
}

impl Words {
    pub(super) fn knock(&self, random: Word) -> [u8; KNOCK] {
        datagram(ASKS, random, self.theirs)
    }

    /// What is to be answered to a datagram.
    pub(super) fn answer(&self, heard: &[u8; KNOCK]) -> Option<[u8; KNOCK]> {
        let (kind, random, word) = parts(heard);
        (kind == ASKS && word == self.ours).then(|| datagram(ANSWERS, random, self.theirs))
    }

    /// The address at which the peer is, if a datagram shows that: that of the knock which it answers.
    pub(super) fn proves(
        &self,
        heard: &[u8; KNOCK],
        knocks: &[(SocketAddr, Word)],
    ) -> Option<SocketAddr> {
        let (kind, random, word) = parts(heard);
        let is_answer = kind == ANSWERS && word == self.ours;
        let mut all = knocks.iter().filter(|_| is_answer);
        all.find(|(_, it)| *it == random).map(|(at, _)| *at)
    }
}

fn datagram(kind: u8, random: Word, word: Word) -> [u8; KNOCK] {
    let mut it = [kind; KNOCK];
    it[1..9].copy_from_slice(&random);
    it[9..].copy_from_slice(&word);
    it
}

fn parts(it: &[u8; KNOCK]) -> (u8, Word, Word) {
    let (mut random, mut word) = (Word::default(), Word::default());
    random.copy_from_slice(&it[1..9]);
    word.copy_from_slice(&it[9..]);
    (it[0], random, word)
}

/// For the fuzz target: nothing but a whole datagram is read, and an answer is as long as what it answers.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    let Some((heard, words)) = bytes.split_first_chunk::<KNOCK>() else {
        return;
    };
    let word = |at| Word::try_from(words.get(at..at + 8).unwrap_or_default()).unwrap_or_default();
    let it = Words {
        ours: word(0),
        theirs: word(8),
    };
    let knocks = [(SocketAddr::from(([198, 51, 100, 2], 4000)), word(16))];
    let (answer, proves) = (it.answer(heard), it.proves(heard, &knocks));
    assert!(answer.is_none() || proves.is_none(), "both at once");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_peer_shows_where_it_is() {
        let ann = Words {
            ours: [1; 8],
            theirs: [2; 8],
        };
        let bob = Words {
            ours: [2; 8],
            theirs: [1; 8],
        };
        let at: SocketAddr = "198.51.100.2:4000".parse().unwrap();
        let other = "198.51.100.3:4000".parse().unwrap();
        let knocks = [(other, [8; 8]), (at, [9; 8])];
        let knock = ann.knock([9; 8]);
        assert_eq!(knock[..2], [0, 9]);
        assert_eq!(knock[9..], [2; 8]);
        let answer = bob.answer(&knock).unwrap();
        assert_eq!(ann.proves(&answer, &knocks), Some(at));
        // What is reflected, what is made up, and what was not asked.
        assert_eq!(ann.proves(&knock, &knocks), None);
        assert_eq!(ann.answer(&knock), None);
        assert_eq!(bob.answer(&answer), None);
        assert_eq!(
            ann.proves(&bob.answer(&ann.knock([7; 8])).unwrap(), &knocks),
            None
        );
        assert_eq!(
            ann.proves(&datagram(ANSWERS, [9; 8], [2; 8]), &knocks),
            None
        );
    }
}
