//! Addresses: what to dial or to listen on, and which layers to put above it.
//!
//! ```text
//! address  =  *( layer "+" ) scheme ":" target [ options ]
//! options  =  *( "," key [ "=" value ] )          the usual form; only `framed` may stand without a value
//!          /  "?" key "=" value *( "&" key "=" value )      an alias, the same keys
//! layer    =  "mux"                    top of the stack first: mux+tls+tcp:… is mux above TLS above TCP
//!          /  "tls" [ "?key=" ( "raw" / "x509" ) ]
//!          /  "link" [ options ]
//! ```
//!
//! | scheme | target | options (default) |
//! |---|---|---|
//! | `tcp` | `HOST:PORT`; an IPv6 address stands in brackets | `keepalive=SECONDS,no` (60) `user-timeout=SECONDS` (none) `nodelay=yes,no` (yes) `bind=ADDRESS` (none) `interface=NAME` (none) `mark=NUMBER` (none) `proxy-protocol=yes,no` (no), with `yes` also `proxy-from=NETWORK+NETWORK` (this machine) `proxy=PROXY` (none) |
//! | `ws`, `wss` | `HOST:PORT/PATH`; the path is `/` where none is written | those of `tcp`, `host=HOST` (what is dialled) `header=NAME:VALUE`, as often as needed (none) `ping=SECONDS,no` (30), and of `wss` also `pin=sha256//BASE64` (none) `cert=PATH` `key=PATH` |
//! | `quic` | `HOST:PORT`, of UDP | `keepalive=SECONDS` (10), `bind=`, `interface=` and `mark=` as with `tcp`; `proxy=` is refused when it is opened |
//! | `unix` | `PATH` of a socket | `mode=OCTAL` (0600, with a group 0660) `group=NAME` (the process's) `framed` (no): in frames, so that a cut is told from an end |
//! | `stdio` | nothing: standard input and output of this process | none |
//! | `fd` | `N` for both directions, or `R,W` (read from R, write to W) | none |
//! | `exec` | a command line | `dir=PATH` (this process's own directory) `pty=yes,no` (no) |
//! | `ssh` | `[USER@]HOST[:PORT]`; an IPv6 address stands in brackets | `service=[NAME=]ADDR` and `allow-remote=PLACE`, as often as needed (none) |
//! | `serial` | `PATH` of a device | `baud=` (115200) `data=5..8` (8) `parity=none,odd,even` (none) `stop=1,2` (1) `flow=none,hw,sw` (none) `exclusive=yes,no` (yes) `lock=yes,no,PATH` (where it can be made) `dtr=keep,on,off` (keep) `rts=keep,on,off` (keep) `rs485=keep,on,off` (keep), with `on` also `rts-on-send=high,low` (high) `rts-before=0..100` (0) `rts-after=0..100` (0) `rx-during-tx=yes,no` (no) `mtu=64..4096` (none) `duplex=full,half` (full) |
//! | `rfc2217` | `HOST:PORT` of a serial server | `keepalive=`, `user-timeout=`, `nodelay=`, `bind=`, `interface=`, `mark=` and `proxy=` as with `tcp`, `baud=`, `data=`, `parity=`, `stop=`, `flow=`, `dtr=`, `rts=`, `mtu=` and `duplex=` as with `serial` |
//! | `pty` | `PATH` of the link to make | none |
//! | `memory` | `NAME` of a listener in this process | none |
//!
//! The keys of `link`: `escape=least,xonxoff,control` (least), `mtu=` and `duplex=` as with `serial`.
//!
//! **Escapes.** In every target except a command line, and in every option's value, `%XX` stands for
//! the byte XX. A literal `%` is written `%25`, and in a target `,` is `%2C` and `?` is `%3F`. In an
//! option's value only the separator of the form in use needs it (`,` or `&`). Inside the brackets of
//! an IPv6 address nothing is escaped, so a zone is written plainly: `tcp:[fe80::1%eth0]:7000`.
//!
//! **Command lines** are split into words as a POSIX shell does it (quotes, backslashes, and `$'…'` with its
//! escapes, `\xXX` among them; no shell runs, so nothing is expanded). Commas, question marks and percent signs in them are literal,
//! with one exception: outside of quotes, the first `,KEY=` or `?KEY=` whose KEY is one of exec's
//! own keys (`dir`, `pty`) begins the option list, which then reaches to the end of the address.
//! So `exec:ssh host cepa pipe stdio: serial:/dev/ttyUSB0,baud=9600` and
//! `exec:cepa serve stdio: --service db=unix:/x/y` are plain commands; an inner `,dir=` that belongs
//! to the command is put in quotes.
//!
//! **Round trip.** An address is parsed into types at the edge and printed from the same types:
//! `parse(print(e)) == e` for every [`Endpoint`] (by [`Endpoint::revealed`] where it holds a password or headers, which are
//! shown as `***`), and `print(parse(s))` is the one canonical text of
//! `s` (comma form, keys in the order of the table, defaults left out except `baud`). It is fit to be shown: what is
//! not [printable](crate::text::is_printable) is written as an escape.
//!
//! A parse error names the column, what was expected there, and the nearest valid word.

mod command;
mod connection;
mod escape;
mod keys;
mod options;
mod others;
mod parse;
mod print;
mod print_connection;
mod proxy;
mod secret;
mod serial;
mod socket;
mod ssh;
mod types;
mod ws;

pub use connection::{
    Proxy, ProxyKind, ProxyLogin, QuicSettings, SshSettings, TcpSettings, TcpWay, WsSettings, WsTls,
};
pub use keys::SCHEMES;
pub use parse::ParseError;
pub use print::Revealed;
pub use secret::{Secret, hidden, hidden_proxy};
pub use types::{
    DataBits, Duplex, Endpoint, Escapes, FlowControl, Layer, LinkSettings, MTU, ModemLine, Parity,
    Rfc2217Settings, Rs485, Rs485Mode, SerialLock, SerialSettings, StopBits, Target, UnixSettings,
};

#[cfg(test)]
mod tests;
