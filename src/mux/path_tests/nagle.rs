//! A hop that copies bytes from one connection to the next and leaves Nagle's algorithm on (RFC 896): what is less than a segment
//! waits until all before it is acknowledged, and whoever receives it acknowledges with what it sends, or after 40 ms (RFC 9293,
//! 3.8.6.3).

use super::{
    Bytes, CLIENT, Duration, Instant, MS, Packet, Path, RECORD_EXTRA, SECOND, SERVER, VecDeque,
    config,
};

const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Of the loopback interface.
const SEGMENT: usize = 32 << 10;

pub(super) struct Nagle {
    /// Bytes of one read.
    read: usize,
    held: VecDeque<Packet>,
    unacknowledged: bool,
    acknowledged_at: Option<Instant>,
    arrived: VecDeque<Bytes>,
}

impl Nagle {
    pub(super) fn new(read: usize) -> Self {
        Self {
            read,
            held: VecDeque::new(),
            unacknowledged: false,
            acknowledged_at: None,
            arrived: VecDeque::new(),
        }
    }

    /// A TLS record has come to the hop.
    pub(super) fn take(&mut self, now: Instant, record: &Bytes) {
        let mut left = record.len() + RECORD_EXTRA;
        while left > 0 {
            let len = left.min(self.read);
            left -= len;
            self.held.push_back(Packet {
                len,
                done: (left == 0).then(|| record.clone()),
            });
            self.pass_on(now);
        }
    }

    fn pass_on(&mut self, now: Instant) {
        let held: usize = self.held.iter().map(|packet| packet.len).sum();
        if held == 0 || self.unacknowledged && held < SEGMENT {
            return;
        }
        self.unacknowledged = true;
        self.acknowledged_at = Some(now + DELAYED_ACK);
        let whole = self.held.drain(..).filter_map(|packet| packet.done);
        self.arrived.extend(whole);
    }

    /// The receiver has sent something.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        if std::mem::take(&mut self.unacknowledged) {
            self.acknowledged_at = None;
            self.pass_on(now);
        }
    }

    pub(super) fn arrived(&mut self, now: Instant) -> Option<Bytes> {
        if self.acknowledged_at.is_some_and(|at| at <= now) {
            self.acknowledge(now);
        }
        self.arrived.pop_front()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.acknowledged_at
    }
}

/// The stall of a hop that waits for an acknowledgement is no rate: a record that came back at once tells how fast the path is at
/// least. Each run begins with pieces that come one by one, as from a pipe.
#[test]
fn bulk_through_a_hop_with_nagles_algorithm() {
    for read in [1 << 10, 4 << 10, 16 << 10] {
        for first in [3000, 5400] {
            let mut path = Path::new(1e8, 1 << 20, MS / 100, config()).nagle(read);
            let (here, there) = path.bulk[CLIENT].take().unwrap();
            for size in [1400, 2300, 3600, first, first] {
                path.write(CLIENT, here, size);
                let mut got = 0;
                while got < size {
                    path.step();
                    got += path.read(SERVER, there);
                }
            }
            path.bulk[CLIENT] = Some((here, there));
            path.run(SECOND / 2);
            let before = path.got[CLIENT];
            path.run(SECOND / 10);
            let got = path.got[CLIENT] - before;
            assert!(got >= 4 << 20, "{read}, {first}: {got}");
        }
    }
}
