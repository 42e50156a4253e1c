//! The words of the grammar (schemes, keys, values), and the nearest one to a misspelt word.

use strsim::osa_distance;

/// The word in front of the first `:` of an address without layers, for each transport there is, in the order in which messages list them.
pub const SCHEMES: &[&str] = &[
    "tcp", "ws", "wss", "quic", "unix", "stdio", "fd", "exec", "ssh", "serial", "rfc2217", "pty",
    "memory",
];

/// The keys of whatever goes over a TCP connection that it dials, and then its own.
macro_rules! over_tcp {
    ($($own:literal),* $(,)?) => {
        &["keepalive", "user-timeout", "nodelay", "bind", "interface", "mark", $($own),*]
    };
}

/// Those of a WebSocket, and then its own.
macro_rules! web_socket {
    ($($own:literal),* $(,)?) => {
        over_tcp!("proxy-protocol", "proxy-from", "proxy", "host", "header", "ping", $($own),*)
    };
}

/// The keys that the option list of a scheme, or of a layer, can hold, in the order in which they are printed.
pub(super) fn keys_of(scheme: &str) -> &'static [&'static str] {
    match scheme {
        "tcp" => over_tcp!("proxy-protocol", "proxy-from", "proxy"),
        "ws" => web_socket!(),
        "wss" => web_socket!("pin", "cert", "key"),
        "quic" => &["keepalive", "bind", "interface", "mark", "proxy"],
        "unix" => &["mode", "group", "framed"],
        "exec" => &["dir", "pty"],
        "ssh" => &["service", "allow-remote"],
        "serial" => &[
            "baud",
            "data",
            "parity",
            "stop",
            "flow",
            "exclusive",
            "lock",
            "dtr",
            "rts",
            "rs485",
            "rts-on-send",
            "rts-before",
            "rts-after",
            "rx-during-tx",
            "mtu",
            "duplex",
        ],
        "rfc2217" => over_tcp!(
            "proxy", "baud", "data", "parity", "stop", "flow", "dtr", "rts", "mtu", "duplex",
        ),
        // A layer, but its options are those of a scheme.
        "link" => &["escape", "mtu", "duplex"],
        _ => &[],
    }
}

/// The keys that may stand more than once.
pub(super) const REPEATED: &[&str] = &["header", "service", "allow-remote"];

/// The keys that may stand without a value, for `yes`.
pub(super) const BARE: &[&str] = &["framed"];

/// The values of the keys that take one word of a few.
pub(super) const DATA: &[&str] = &["5", "6", "7", "8"];
pub(super) const PARITY: &[&str] = &["none", "odd", "even"];
pub(super) const STOP: &[&str] = &["1", "2"];
pub(super) const FLOW: &[&str] = &["none", "hw", "sw"];
pub(super) const LINE: &[&str] = &["keep", "on", "off"];
pub(super) const ESCAPE: &[&str] = &["least", "xonxoff", "control"];
pub(super) const DUPLEX: &[&str] = &["full", "half"];
pub(super) const LEVEL: &[&str] = &["high", "low"];
pub(super) const YES_NO: &[&str] = &["yes", "no"];

/// The candidate nearest to `word`, if one is near enough to be what was meant.
///
/// Near enough: at most two edits, fewer for short words, so that `abc` does not suggest `tcp`;
/// or a beginning of the candidate of at least two letters.
pub(super) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    // A long word is no misspelling of a short one, and the distance costs time in both lengths.
    if word.is_empty() || word.len() > 32 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .iter()
        .map(|c| (osa_distance(&lower, c), *c))
        .filter(|(d, c)| {
            (*d <= 2 && 2 * *d <= c.len()) || (lower.len() >= 2 && c.starts_with(&lower))
        })
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::{SCHEMES, keys_of, nearest};

    #[test]
    fn near_words() {
        assert_eq!(nearest("serail", SCHEMES), Some("serial"));
        assert_eq!(nearest("tpc", SCHEMES), Some("tcp"), "a swap is one edit");
        assert_eq!(nearest("TCP", SCHEMES), Some("tcp"));
        assert_eq!(nearest("std", SCHEMES), Some("stdio"));
        assert_eq!(nearest("par", keys_of("serial")), Some("parity"));
        assert_eq!(nearest("bauds", keys_of("serial")), Some("baud"));
        assert_eq!(nearest("xyzzy", SCHEMES), None);
        assert_eq!(nearest("", SCHEMES), None);
    }
}
