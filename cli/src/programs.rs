//! Programs that a peer may run with arguments of its own (`--service NAME=command:/PROGRAM,…` and `cepa exec`): which they are, and how
//! one is asked for.
//!
//! ```text
//! request   length(2) words, each with a zero byte behind it: the program and its arguments
//! ```
//!
//! The words become the argument vector as they are; no shell sees them. What a program does with its arguments is its own business, so
//! whoever lists one allows all that it can be told to do. A program that is not listed and one that is asked for by a path
//! that is not exactly the listed one get the same answer, which does not say what is listed.

use std::path::Path;
use std::str::FromStr;

use cepa::transports::{Endpoint, Target};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most words of a request, the program included.
const WORDS: usize = 256;

/// Most bytes of a request: more than an honest command line has, and little to hold for who may be a stranger.
const BYTES: usize = 32 * 1024;

/// In place of a name behind the prefix: the only service of this kind that there is.
pub(crate) const ONLY: &str = "cepa.command";

/// What a peer reads that asks for anything else.
pub(crate) const NOT_ALLOWED: &str = "the owner does not allow this program";

/// What `command:` allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Programs(Vec<String>);

impl FromStr for Programs {
    type Err = String;

    /// `/PROGRAM[,/PROGRAM…]`.
    fn from_str(word: &str) -> Result<Self, String> {
        let all: Vec<String> = word.split(',').map(str::to_owned).collect();
        for (at, program) in all.iter().enumerate() {
            let Some(name) = name(program).filter(|_| program.starts_with('/')) else {
                return Err(format!(
                    "expected programs by their absolute paths, for example command:/usr/bin/uptime,/bin/dmesg, and not {program:?}"
                ));
            };
            let before = all.iter().take(at);
            if before
                .filter_map(|other| self::name(other))
                .any(|other| other == name)
            {
                return Err(format!(
                    "two programs are called {name}, and a peer may ask for one by that name; leave one out"
                ));
            }
        }
        Ok(Self(all))
    }
}

impl Programs {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The listed program that is asked for: by its path as it is listed, or by its name alone.
    fn find(&self, asked: &str) -> Option<&str> {
        self.iter()
            .find(|program| *program == asked || name(program) == Some(asked))
    }

    /// What runs it with these arguments, if it is listed; else why not, for the peer.
    pub(crate) fn command(&self, words: &[String]) -> Result<Endpoint, &'static str> {
        let (asked, arguments) = words.split_first().ok_or(NOT_ALLOWED)?;
        let program = self.find(asked).ok_or(NOT_ALLOWED)?.to_owned();
        let argv = [program].into_iter().chain(arguments.iter().cloned());
        let target = Target::Exec {
            argv: argv.collect(),
            dir: None,
            pty: false,
        };
        Endpoint::new(&[], target).map_err(|_| "these arguments cannot be passed on")
    }
}

/// The last part of a path.
fn name(program: &str) -> Option<&str> {
    let name = Path::new(program).file_name()?.to_str()?;
    program.ends_with(name).then_some(name)
}

/// A request for these words, or what is wrong with them.
pub(crate) fn request(words: &[String]) -> Result<Vec<u8>, String> {
    if words.len() > WORDS {
        return Err(format!(
            "at most {WORDS} words can be sent, the program included"
        ));
    }
    let mut content = Vec::new();
    for word in words {
        if word.contains('\0') {
            return Err("an argument cannot have a zero byte in it".to_owned());
        }
        content.extend(word.bytes());
        content.push(0);
    }
    match u16::try_from(content.len()) {
        Ok(length) if content.len() <= BYTES => Ok([&length.to_be_bytes()[..], &content].concat()),
        _ => Err(format!(
            "the arguments are longer than {BYTES} bytes in all; send what is long on standard input"
        )),
    }
}

/// Reads a request. `Err` is for the log.
pub(crate) async fn asked(far: &mut (impl AsyncRead + Unpin)) -> Result<Vec<String>, String> {
    let length = far.read_u16().await.map_err(|e| e.to_string())?;
    let length = usize::from(length);
    if length > BYTES {
        return Err(format!("it is longer than {BYTES} bytes"));
    }
    // As large as what came, and not as what was said to come.
    let mut content = Vec::new();
    let read = far.take(length as u64).read_to_end(&mut content).await;
    if read.map_err(|e| e.to_string())? < length {
        return Err("it was cut off".to_owned());
    }
    parsed(&content).ok_or_else(|| "it is no list of words".to_owned())
}

fn parsed(content: &[u8]) -> Option<Vec<String>> {
    let words = std::str::from_utf8(content).ok()?.strip_suffix('\0')?;
    let words: Vec<String> = words
        .split('\0')
        .take(WORDS + 1)
        .map(str::to_owned)
        .collect();
    (words.len() <= WORDS && words.first().is_some_and(|first| !first.is_empty())).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_program_is_found_by_its_listed_path_or_its_name_and_in_no_other_way() {
        let all: Programs = "/usr/bin/uptime,/bin/dmesg".parse().unwrap();
        assert_eq!(all.find("uptime"), Some("/usr/bin/uptime"));
        assert_eq!(all.find("/bin/dmesg"), Some("/bin/dmesg"));
        for other in [
            "",
            "/",
            "/usr/bin/dmesg",
            "/usr/bin/../bin/uptime",
            "//usr/bin/uptime",
            "bin/dmesg",
            "./uptime",
            "UPTIME",
            "uptime ",
            "/usr/bin/uptime,/bin/dmesg",
        ] {
            assert_eq!(all.find(other), None, "{other:?}");
        }
    }

    /// Whatever an address would read into them.
    #[test]
    fn arguments_are_passed_as_they_are() {
        let all: Programs = "/bin/dmesg".parse().unwrap();
        let long = "x ".repeat(BYTES / 2 - 10);
        for list in [
            &["dmesg"][..],
            &["dmesg", "-x; rm", "$(id)", "", "*"],
            &["dmesg", "a,pty=yes"],
            &["dmesg", "x", ",dir=/tmp,pty=yes"],
            &["dmesg", "?pty=yes"],
            &[
                "dmesg",
                "'",
                "\"",
                "\\",
                "\\'",
                "a\nb",
                "\t",
                "\x01\x7f",
                "ü\u{202e}",
            ],
            &["dmesg", &long],
        ] {
            let command = all.command(&words(list)).unwrap();
            let Target::Exec { argv, pty, dir } = command.target() else {
                panic!("no command");
            };
            assert_eq!(argv[0], "/bin/dmesg");
            assert_eq!(&argv[1..], &words(list)[1..]);
            assert!(!pty && dir.is_none());
        }
    }

    #[test]
    fn what_is_listed_is_absolute_and_each_has_its_name() {
        for wrong in [
            "",
            "uptime",
            "/bin/a,",
            "/bin/a,b",
            "/",
            "/bin/",
            "/bin/..",
            "/bin/a,/usr/bin/a",
            "/bin/a,/bin/a",
            "./a",
        ] {
            assert!(wrong.parse::<Programs>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written_and_bounded() {
        for list in [&["a"][..], &["a", "", "b c", "ü"], &["x"; WORDS]] {
            let bytes = request(&words(list)).unwrap();
            assert_eq!(parsed(&bytes[2..]).unwrap(), words(list));
        }
        assert!(request(&words(&["x"; WORDS + 1])).is_err());
        assert!(request(&[String::from_utf8(vec![b'x'; BYTES]).unwrap()]).is_err());
        assert!(request(&words(&["a\0b"])).is_err());
        let many = "x\0".repeat(WORDS + 1);
        for wrong in [&b""[..], b"\0", b"a", b"\0a\0", b"\xff\0", many.as_bytes()] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
