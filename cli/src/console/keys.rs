//! What is typed at a console: bytes for the service, and the few words to the console itself, which
//! begin with an escape character at the start of a line.

/// What a piece of input came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// For the service.
    Bytes(Vec<u8>),
    /// `~.`
    Leave,
    /// `~B`
    Break,
    /// `~D`
    Dtr,
    /// `~T`
    Rts,
    /// `~?`
    Help,
    /// `~^Z`
    Suspend,
    /// `~l`
    Log,
    /// `~s`
    Statistics,
    /// `~R`
    Redial,
}

/// Where in a line we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Escape,
    Inside,
}

/// Reads what is typed.
#[derive(Debug)]
pub(crate) struct Keys {
    /// None: everything is for the service.
    escape: Option<u8>,
    at: At,
}

impl Keys {
    pub(crate) fn new(escape: Option<u8>) -> Self {
        Self {
            escape,
            at: At::Start,
        }
    }

    pub(crate) fn read(&mut self, typed: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut bytes = Vec::new();
        for &byte in typed {
            let word = match (self.at, self.escape) {
                (At::Escape, Some(escape)) => match byte {
                    b'.' => Some(Key::Leave),
                    b'B' => Some(Key::Break),
                    b'D' => Some(Key::Dtr),
                    b'T' => Some(Key::Rts),
                    b'?' => Some(Key::Help),
                    0x1a => Some(Key::Suspend),
                    b'l' => Some(Key::Log),
                    b's' => Some(Key::Statistics),
                    b'R' => Some(Key::Redial),
                    // Typed twice it stands for itself, once.
                    other if other == escape => None,
                    _ => {
                        bytes.push(escape);
                        None
                    }
                },
                (At::Start, Some(escape)) if byte == escape => {
                    self.at = At::Escape;
                    continue;
                }
                _ => None,
            };
            if let Some(word) = word {
                if !bytes.is_empty() {
                    keys.push(Key::Bytes(std::mem::take(&mut bytes)));
                }
                keys.push(word);
                self.at = At::Start;
                continue;
            }
            bytes.push(byte);
            self.at = match byte {
                b'\r' | b'\n' => At::Start,
                _ => At::Inside,
            };
        }
        if !bytes.is_empty() {
            keys.push(Key::Bytes(bytes));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> Vec<Key> {
        let mut keys = Keys::new(Some(b'~'));
        let read = pieces.iter().flat_map(|piece| keys.read(piece.as_bytes()));
        let mut all = Vec::new();
        for key in read {
            match (all.last_mut(), key) {
                (Some(Key::Bytes(before)), Key::Bytes(more)) => before.extend(more),
                (_, key) => all.push(key),
            }
        }
        all
    }

    fn bytes(text: &str) -> Key {
        Key::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn the_escape_character_counts_at_the_start_of_a_line_only() {
        for (input, keys) in [
            ("~.", vec![Key::Leave]),
            ("ls\r~.", vec![bytes("ls\r"), Key::Leave]),
            ("ls\n~.", vec![bytes("ls\n"), Key::Leave]),
            ("a~.b", vec![bytes("a~.b")]),
            ("~~.", vec![bytes("~.")]),
            ("~x", vec![bytes("~x")]),
            ("~\r~?", vec![bytes("~\r"), Key::Help]),
            ("~B~B", vec![Key::Break, Key::Break]),
            ("~D~T", vec![Key::Dtr, Key::Rts]),
            ("~l~s~R", vec![Key::Log, Key::Statistics, Key::Redial]),
            ("~\x1als\r", vec![Key::Suspend, bytes("ls\r")]),
            ("", vec![]),
        ] {
            assert_eq!(typed(&[input]), keys, "{input:?}");
            let single: Vec<String> = input.chars().map(String::from).collect();
            let single: Vec<&str> = single.iter().map(String::as_str).collect();
            assert_eq!(typed(&single), keys, "{input:?} key by key");
        }
    }

    #[test]
    fn without_an_escape_character_all_is_for_the_service() {
        let mut keys = Keys::new(None);
        assert_eq!(keys.read(b"~.\r~."), [bytes("~.\r~.")]);
    }
}
