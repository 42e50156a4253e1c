//! `config.toml` in the configuration folder: names for what is dialled, with the options that go with them, as
//! `ssh_config` has them.
//!
//! The file is the user's own words and can name commands to run, so it has to be the user's alone, as the other files of
//! the folder. Whatever is wrong in it is told with its line and its key. It is read anew by each command that
//! meets a name; there being none is an empty one.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cepa::identity::{PrivateFileError, read_private};
use cepa::node::{Hint, PeerAddr, SCHEME};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::advice::with_advice;
use crate::direct::DirectChoice;
use crate::exit::{Code, Failure};
use crate::folder;
use crate::keep;
use crate::settings::{Address, Options, Settings, Target, speaks_of};
use crate::toml_file::{explained, line_number};
use crate::words::ProxyChoice;

/// Thousands of names; a file that is larger must be something else.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    relay: Option<Spanned<String>>,
    proxy: Option<Spanned<String>>,
    direct: Option<Spanned<String>>,
    #[serde(default)]
    control: bool,
    #[serde(default)]
    targets: BTreeMap<Spanned<String>, FileTarget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTarget {
    address: Option<Spanned<OneOrMore>>,
    service: Option<Spanned<String>>,
    expect: Option<Spanned<String>>,
    trust: Option<Spanned<String>>,
    ca: Option<String>,
    durable: Option<bool>,
    park: Option<Spanned<String>>,
    #[serde(default)]
    reconnect: bool,
    control: Option<bool>,
    #[serde(default)]
    local_hints: bool,
    identity: Option<PathBuf>,
    escape: Option<Spanned<String>>,
    log: Option<PathBuf>,
}

/// A word, or a list of them. Not an untagged enum: that forgets where the words stand.
enum OneOrMore {
    One(String),
    More(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address in quotes, or a list of them")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<OneOrMore, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = all.next_element()? {
                    words.push(word);
                }
                Ok(OneOrMore::More(words))
            }
        }

        from.deserialize_any(Words)
    }
}

/// Where the file is.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    Ok(folder::path()?.join("config.toml"))
}

/// The settings of this user.
pub(crate) fn read() -> Result<Settings, Failure> {
    // Without a home folder there are none.
    path().map_or_else(|_| Ok(Settings::default()), |path| read_at(&path))
}

/// What the file says of a proxy. A file that is wrong matters only to who uses it: it is one that says nothing, unless it speaks of a proxy.
/// Then nobody knows whether peers may be dialled directly.
pub(crate) fn proxy() -> Result<Option<ProxyChoice>, Failure> {
    of_all("proxy", |settings| settings.proxy)
}

/// What the file says of direct paths. The same of one that is wrong: nobody knows whether peers may be told any address.
pub(crate) fn direct() -> Result<Option<DirectChoice>, Failure> {
    of_all("direct", |settings| settings.direct)
}

/// What the file says for all commands, unless it is wrong and does not speak of that.
fn of_all<T>(key: &str, which: impl Fn(Settings) -> Option<T>) -> Result<Option<T>, Failure> {
    let speaks_of_it = || {
        let text = path().ok().and_then(|path| std::fs::read(path).ok());
        speaks_of(key, &text.unwrap_or_default())
    };
    match read() {
        Ok(settings) => Ok(which(settings)),
        Err(failure) if speaks_of_it() => Err(failure),
        Err(_) => Ok(None),
    }
}

/// Whether connections are shared. A file that is wrong says nothing of it.
pub(crate) fn control() -> bool {
    read().is_ok_and(|settings| settings.control)
}

fn read_at(path: &Path) -> Result<Settings, Failure> {
    let local = |why: String| Failure::new(Code::Local, format!("{}: {why}", path.display()));
    let bytes = read_private(path, MAX_FILE).map_err(|e: PrivateFileError| local(e.to_string()))?;
    let text = String::from_utf8(bytes.unwrap_or_default());
    parse(&text.map_err(|_| local("not UTF-8 text".into()))?, path)
}

/// Says what is wrong with the value of a key.
type Wrong<'a> = &'a dyn Fn(Range<usize>, &str, String) -> Failure;

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    word: &Spanned<String>,
    key: &str,
    wrong: Wrong<'_>,
) -> Result<T, Failure> {
    let parsed = word.get_ref().parse();
    parsed.map_err(|e: T::Err| wrong(word.span(), key, e.to_string()))
}

fn parse(text: &str, path: &Path) -> Result<Settings, Failure> {
    let at = |at: usize, why: &str| {
        let line = line_number(text, at);
        Failure::new(Code::Usage, format!("{}:{line}: {why}", path.display()))
    };
    let file: File = toml::from_str(text).map_err(|e| {
        let (span, why) = explained(text, &e);
        at(span.map_or(0, |span| span.start), &why)
    })?;
    let wrong =
        |span: Range<usize>, key: &str, why: String| at(span.start, &format!("{key}: {why}"));
    let relay = file.relay.map(|word| {
        let relay: PeerAddr = word
            .get_ref()
            .parse()
            .map_err(|e| wrong(word.span(), "relay", with_advice(&e)))?;
        if relay.hints().is_empty() || !relay.service().is_empty() {
            let why = "give where the relay is, and no service: cepa://RELAYID@ADDR";
            return Err(wrong(word.span(), "relay", why.into()));
        }
        Ok(relay)
    });
    let proxy = file.proxy.as_ref();
    let proxy = proxy
        .map(|word| parsed(word, "proxy", &wrong))
        .transpose()?;
    let direct = file.direct.as_ref();
    let direct = direct.map(|word| parsed(word, "direct", &wrong));
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut targets = BTreeMap::new();
    for (name, target) in file.targets {
        let (start, name) = (name.span().start, name.into_inner());
        if !is_name(&name) {
            let why = format!(
                "{name:?} is no name: use letters, digits, `.`, `_` and `-`, a letter or digit first"
            );
            return Err(at(start, &why));
        }
        let judged = judged(target, &name, line_number(text, start), folder, &wrong)?;
        targets.insert(name, judged);
    }
    Ok(Settings {
        relay: relay.transpose()?,
        proxy,
        direct: direct.transpose()?,
        control: file.control,
        targets,
    })
}

/// A name that a command line takes behind `@`, and that ends where a service begins.
fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@'))
}

fn judged(
    target: FileTarget,
    name: &str,
    line: usize,
    folder: &Path,
    wrong: Wrong<'_>,
) -> Result<Target, Failure> {
    let expect = target.expect.as_ref();
    let trust = target.trust.as_ref();
    if let (Some(_), Some(trust)) = (expect, trust) {
        let why = "with `expect` nobody else is trusted; leave one of the two out";
        return Err(wrong(trust.span(), "trust", why.into()));
    }
    let words = target.address.map_or_else(Vec::new, |address| {
        let span = address.span();
        match address.into_inner() {
            OneOrMore::One(word) => vec![Spanned::new(span, word)],
            OneOrMore::More(words) => words,
        }
    });
    let address = address(&words, wrong)?;
    if let (Address::Peer(_), Some(word)) = (&address, expect.or(trust)) {
        let why = "`address` already names the peer; leave this out".to_owned();
        let key = if target.expect.is_some() {
            "expect"
        } else {
            "trust"
        };
        return Err(wrong(word.span(), key, why));
    }
    if let (Address::Hints(hints), None, Some(word)) = (&address, expect, words.first())
        && let [Hint::Relay { .. }] | [_, _, ..] = hints.as_slice()
        && crate::words::meant(name).is_none()
    {
        let why = "several addresses or a relay need `expect`, the id of the peer that is there";
        return Err(wrong(word.span(), "address", why.into()));
    }
    let park = target.park.map(|word| {
        let time = keep::park(word.get_ref()).map_err(|e| wrong(word.span(), "park", e))?;
        match target.durable {
            Some(false) => {
                let why = "with durable = false no session is kept; leave out `park`";
                Err(wrong(word.span(), "park", why.into()))
            }
            _ => Ok(time),
        }
    });
    let options = Options {
        expect: expect.map(|w| parsed(w, "expect", wrong)).transpose()?,
        trust: trust.map(|w| parsed(w, "trust", wrong)).transpose()?,
        ca: target.ca,
        durable: target.durable,
        park: park.transpose()?,
        reconnect: target.reconnect,
        control: target.control,
        local_hints: target.local_hints,
        identity: target.identity.map(|file| folder.join(file)),
        escape: target
            .escape
            .map(|w| parsed(&w, "escape", wrong))
            .transpose()?,
        log: target.log.map(|file| folder.join(file)),
    };
    Ok(Target {
        line,
        address,
        service: target.service.map(Spanned::into_inner),
        options,
    })
}

fn address(words: &[Spanned<String>], wrong: Wrong<'_>) -> Result<Address, Failure> {
    if let [word] = words
        && word.get_ref().starts_with(SCHEME)
    {
        let peer: PeerAddr = word
            .get_ref()
            .parse()
            .map_err(|e| wrong(word.span(), "address", with_advice(&e)))?;
        return Ok(Address::Peer(peer));
    }
    let mut hints = Vec::new();
    for word in words {
        if word.get_ref().starts_with(SCHEME) {
            let why = "a peer's own address stands alone; put its other addresses into it: cepa://PEERID@ADDR;ADDR";
            return Err(wrong(word.span(), "address", why.into()));
        }
        hints.push(parsed(word, "address", wrong)?);
    }
    Ok(if hints.is_empty() {
        Address::Known
    } else {
        Address::Hints(hints)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza";

    fn parse_it(text: &str) -> Result<Settings, String> {
        parse(text, Path::new("/c/config.toml")).map_err(|e| e.message)
    }

    #[test]
    fn a_file_is_read() {
        let text = format!(
            r#"
relay = "cepa://{ID}@tcp:relay:7711"
control = true
[targets.board]
address = "serial:/dev/ttyUSB0"
expect = "{ID}"
service = "sh"
escape = "none"
log = "board.log"
reconnect = true
control = false
identity = "board.pem"
[targets.ann]
address = ["tcp:ann:7000", "relay:{ID}@tcp:relay:7711"]
expect = "{ID}"
park = "2d"
[targets.bob]
address = "cepa://{ID}@tcp:bob:7000/up"
[targets.carol]
durable = false
"#
        );
        let settings = parse_it(&text).unwrap();
        assert_eq!(settings.relay.unwrap().peer(), ID.parse().unwrap());
        let board = &settings.targets["board"];
        assert!(settings.control);
        assert_eq!(board.options.control, Some(false));
        assert_eq!((board.line, board.service.as_deref()), (4, Some("sh")));
        assert_eq!(board.options.escape.unwrap().byte(), None);
        assert_eq!(
            board.options.identity.as_deref(),
            Some(Path::new("/c/board.pem"))
        );
        assert_eq!(
            board.options.log.as_deref(),
            Some(Path::new("/c/board.log"))
        );
        assert!(board.options.reconnect);
        let Address::Hints(hints) = &settings.targets["ann"].address else {
            panic!("no list");
        };
        assert_eq!(hints.len(), 2);
        assert!(matches!(settings.targets["bob"].address, Address::Peer(_)));
        assert!(matches!(settings.targets["carol"].address, Address::Known));
        assert_eq!(settings.targets["carol"].options.durable, Some(false));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_key() {
        for (text, line, what) in [
            ("realy = 'x'", 1, "did you mean `relay`?"),
            ("[target.x]", 1, "did you mean `targets`?"),
            (
                "[targets.x]\nadress = 'tcp:h:1'",
                2,
                "did you mean `address`?",
            ),
            (
                "[targets.x]\naddress = tcp:h:1",
                2,
                "write address = \"tcp:h:1\"",
            ),
            ("[targets.x]\naddress = 'tpc:h:1'", 2, "address: "),
            (
                "[targets.x]\naddress = [\n'tcp:h:1',\n'tpc:h:1']",
                4,
                "did you mean \"tcp\"?",
            ),
            (
                "[targets.x]\naddress = ['tcp:h:1', 'tcp:h:2']",
                2,
                "`expect`",
            ),
            ("[targets.x]\naddress = 5", 2, "in quotes"),
            ("[targets.x]\nexpect = 'abc'", 2, "expect: "),
            ("[targets.x]\nexpect = '@a'\ntrust = 'any'", 3, "leave one"),
            ("[targets.x]\ntrust = 'all'", 2, "trust: expected \"any\""),
            ("[targets.x]\npark = '5'", 2, "park: expected a time"),
            (
                "[targets.x]\npark = '5s'\ndurable = false",
                2,
                "leave out `park`",
            ),
            ("[targets.x]\nescape = 'ab'", 2, "escape: expected one"),
            ("[targets.'a/b']", 1, "no name"),
            ("relay = 'tcp:h:1'", 1, "relay: "),
            (&format!("relay = 'cepa://{ID}'"), 1, "relay: give where"),
            (
                &format!("[targets.x]\naddress = 'cepa://{ID}'\nexpect = '@a'"),
                3,
                "already names the peer",
            ),
        ] {
            let error = parse_it(text).expect_err(text);
            let begin = format!("/c/config.toml:{line}: ");
            assert!(error.starts_with(&begin), "{text:?}: {error}");
            assert!(error.contains(what), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
