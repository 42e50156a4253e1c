//! yamux frames as an attacker writes them, by hand: nothing that is attacked has a part in it.

pub(super) const DATA: u8 = 0;
pub(super) const WINDOW: u8 = 1;
pub(super) const PING: u8 = 2;
pub(super) const GO_AWAY: u8 = 3;

pub(super) const SYN: u16 = 1;
pub(super) const ACK: u16 = 2;
pub(super) const FIN: u16 = 4;
pub(super) const RST: u16 = 8;

/// What the spec grants every stream unasked.
pub(super) const INITIAL_WINDOW: u32 = 256 << 10;

pub(super) const HEADER_LEN: usize = 12;

pub(super) const fn header(kind: u8, flags: u16, id: u32, length: u32) -> [u8; HEADER_LEN] {
    let [f0, f1] = flags.to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    let [l0, l1, l2, l3] = length.to_be_bytes();
    [0, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3]
}

/// A data frame with its body.
pub(super) fn data(flags: u16, id: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&header(DATA, flags, id, length), body].concat()
}

/// A frame as it came; bodies are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) length: u32,
}

/// What twelve bytes say.
pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Seen {
    let [_, kind, f0, f1, _, _, _, _, l0, l1, l2, l3] = bytes;
    Seen {
        kind,
        flags: u16::from_be_bytes([f0, f1]),
        length: u32::from_be_bytes([l0, l1, l2, l3]),
    }
}
