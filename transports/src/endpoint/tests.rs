//! The grammar: canonical texts, round trips of any value, and what errors point at.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{
    DataBits, Duplex, Endpoint, Escapes, FlowControl, Layer, LinkSettings, MTU, ModemLine, Parity,
    Proxy, ProxyKind, ProxyLogin, QuicSettings, Rfc2217Settings, Rs485, Rs485Mode, SerialLock,
    SerialSettings, SshSettings, StopBits, Target, TcpSettings, TcpWay, UnixSettings, WsSettings,
    WsTls,
};
use crate::network::Network;

use crate::text::{HOSTILE, is_printable};

fn parse(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Parses, and prints what is expected; the canonical text prints as itself.
fn canonical(text: &str, expected: &str) {
    assert_eq!(parse(text).to_string(), expected);
    assert_eq!(parse(expected).to_string(), expected);
    assert_eq!(parse(expected), parse(text));
}

fn exec(words: &[&str]) -> Target {
    Target::Exec {
        argv: words.iter().map(|w| (*w).to_owned()).collect(),
        dir: None,
        pty: false,
    }
}

#[test]
fn canonical_texts() {
    for same in [
        "tcp:localhost:7000",
        "tcp:127.0.0.1:0",
        "tcp:[::1]:7000",
        "tcp:[fe80::1%eth0]:7000",
        "tcp:[::1]:7000,keepalive=5",
        "tcp:h:1,keepalive=no,user-timeout=30",
        "tcp:h:1,nodelay=no,bind=192.0.2.1,interface=eth0.7,mark=42",
        "ws:h:1/,bind=fe80::1,ping=5",
        "mux+tls+quic:[fe80::1%eth0]:7000",
        "quic:h:0,keepalive=5,bind=::1,interface=wg0,mark=7,proxy=http://p:1",
        "rfc2217:h:1,nodelay=no,bind=::1,baud=9600",
        "tcp:h:1,proxy-protocol=yes",
        "tcp:h:1,proxy-protocol=yes,proxy-from=10.0.0.0/8+192.0.2.1+fd00::/8",
        "tcp:h:1,proxy=socks5h://127.0.0.1:1080",
        "tcp:h:1,user-timeout=30,proxy-protocol=yes,proxy=socks5://proxy:1",
        "ws:h:80/",
        "ws:[::1]:8080/a/b%3Fc=d%2Ce%2520f",
        "ws:h:1/,proxy=socks5h://p:1,host=a.b,ping=5",
        "mux+tls+wss:h:443/cepa,ping=no",
        "wss:h:443/,pin=sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "wss:h:443/,keepalive=no,cert=/etc/a b.pem,key=/k",
        "ssh:server",
        "ssh:me@server.example:2222",
        "ssh:[fe80::1%eth0]:22,service=5432",
        "mux+tls+ssh:h,service=db=unix:/run/db.sock%2Cframed,service=up=exec:sh -c 'a; b',allow-remote=0.0.0.0:8080",
        "unix:/s,mode=0660,group=dialout",
        "unix:/s,framed",
        "unix:/s,mode=0600,group=g,framed",
        "rfc2217:h:2217,baud=9600",
        "link+rfc2217:[::1]:1,keepalive=no,proxy=socks5h://p:1,baud=300,data=7,parity=even,stop=2,flow=hw,dtr=off,rts=on",
        "rfc2217:h:1,baud=115200,mtu=240,duplex=half",
        "serial:/dev/ttyS0,baud=9600,lock=yes",
        "serial:/dev/ttyS0,baud=9600,exclusive=no,lock=no,dtr=on",
        "serial:/dev/ttyS0,baud=9600,lock=/run/lock/LCK..x",
        "tcp:[fe80::1%251]:7000",
        "unix:/run/user/1000/cepa.sock",
        "unix:relative/with space",
        "unix:/a%2Cb%3Fc%25d",
        "unix:/a%1B%E2%80%AEb",
        "unix:/%FF",
        "stdio:",
        "fd:3",
        "fd:3,4",
        "exec:cat",
        "exec:cepa serve stdio: --service db=unix:/x/y",
        "exec:sh -c 'cat; exit 3'",
        r"exec:sh -c $'a\nb\'\\' $'\x1b[2J' $'a\xe2\x80\xaeb'",
        "exec:cat,dir=/tmp",
        "exec:sh -i,pty=yes",
        "exec:sh -i,dir=/tmp,pty=yes",
        "serial:/dev/ttyUSB0,baud=115200",
        "serial:/dev/ttyUSB0,baud=9600,data=7,parity=even,stop=2,flow=hw,exclusive=no",
        "serial:/dev/ttyS1,baud=9600,rs485=off",
        "serial:/dev/ttyS1,baud=9600,dtr=on,rs485=on",
        "serial:/dev/ttyS1,baud=9600,rs485=on,rts-on-send=low,rts-before=1,rts-after=100,rx-during-tx=yes",
        "pty:/tmp/line",
        "memory:name",
        "mux+tls+tcp:host:1",
        "tls+tls+serial:/dev/ttyS0,baud=1200",
    ] {
        canonical(same, same);
    }
    canonical("tcp:host:00080", "tcp:host:80");
    canonical("fd:3,3", "fd:3");
    canonical("serial:/dev/x", "serial:/dev/x,baud=115200");
    canonical(
        "serial:/dev/x?flow=sw&baud=300",
        "serial:/dev/x,baud=300,flow=sw",
    );
    canonical(
        "serial:/dev/x,data=8,parity=none",
        "serial:/dev/x,baud=115200",
    );
    canonical(
        "serial:/dev/x?rts-before=00&rx-during-tx=no&rts-on-send=high&rs485=on&rts=keep",
        "serial:/dev/x,baud=115200,rs485=on",
    );
    canonical("unix:/%41%2f", "unix:/A/");
    canonical("tcp:h:1?keepalive=60", "tcp:h:1");
    canonical("tcp:h:1,mark=0x2A,nodelay=yes", "tcp:h:1,mark=42");
    canonical("rfc2217:h:1", "rfc2217:h:1,baud=115200");
    canonical("tcp:h:1,proxy-protocol=no", "tcp:h:1");
    canonical("ws:h:1", "ws:h:1/");
    canonical("ws:h:1?ping=30", "ws:h:1/");
    canonical("tcp:h:1,proxy=http://p:1/", "tcp:h:1,proxy=http://p:1");
    canonical(
        "tcp:h:1,proxy=socks5h://p",
        "tcp:h:1,proxy=socks5h://p:1080",
    );
    canonical(
        "tcp:h:1,proxy=socks5://[::1]/",
        "tcp:h:1,proxy=socks5://[::1]:1080",
    );
    canonical(
        "tcp:h:1,proxy-protocol=yes,proxy-from=127.0.0.1/8+::1",
        "tcp:h:1,proxy-protocol=yes",
    );
    canonical("unix:/s,mode=660", "unix:/s,mode=0660");
    canonical("unix:/s?framed&mode=660", "unix:/s,mode=0660,framed");
    canonical("unix:/s,framed=yes", "unix:/s,framed");
    canonical("unix:/s,framed=no", "unix:/s");
    canonical("exec:  cat   -u ", "exec:cat -u");
    canonical(r#"exec:echo "a b" c\ d"#, "exec:echo 'a b' 'c d'");
    canonical("exec:cat?dir=/a,b", "exec:cat,dir=/a%2Cb");
}

#[test]
fn secrets_are_hidden_but_where_they_are_asked_for() {
    let text = "ws:h:1/,proxy=socks5://user:p%40w%3A@p:1,header=Authorization:Bearer x,header=A:b";
    let endpoint = parse(text);
    assert_eq!(endpoint.revealed().to_string(), text);
    let shown = "ws:h:1/,proxy=socks5://user:***@p:1,header=Authorization:***,header=A:***";
    assert_eq!(endpoint.to_string(), shown);
    assert_eq!(endpoint.target().to_string(), shown);
    for secret in ["p@w", "p%40w", "Bearer"] {
        assert!(!format!("{endpoint:?}").contains(secret), "{endpoint:?}");
    }
    let Target::Ws { settings, .. } = endpoint.target() else {
        panic!("{endpoint}");
    };
    let login = settings.proxy().unwrap().login.clone().unwrap();
    assert_eq!(login.password.reveal(), "p@w:");
    // A user alone may be a token.
    let token = "tcp:h:1,proxy=http://sesame@[::1]:3128";
    let endpoint = parse(token);
    assert_eq!(endpoint.to_string(), "tcp:h:1,proxy=http://***@[::1]:3128");
    assert!(!format!("{endpoint:?}").contains("sesame"), "{endpoint:?}");
    assert_eq!(endpoint.revealed().to_string(), token);
    // What was printed can't be dialled, and says why.
    for hidden in [
        "tcp:h:1,proxy=socks5://user:***@p:1",
        "tcp:h:1,proxy=http://***@p:1",
        "ws:h:1/,header=A:***",
    ] {
        let error = hidden.parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("the secret itself"), "{error}");
    }
    // Neither does an address that is none tell.
    for wrong in [
        "tcp:h:1,proxy=http://user:sesame@p",
        "tcp:h:1,proxy=ftp://user:sesame@p:1",
        "ws://h:1/,proxy=socks5://user:sesame@p:1",
        "ws:h:1/,header=A:sesame,header=B",
        "h:1,proxy=http://user:sesame@p:1",
        "h:1,proxy=http://sesame@p:1",
        "tcp:h:1,proxy=ftp://sesame@p:1",
        "ws://sesame@h:1/",
        "wss:sesame@h:1/",
    ] {
        let error = wrong.parse::<Endpoint>().unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn a_proxy_from_a_variable() {
    let proxy = |text| Proxy::from_variable(text).map(|proxy| proxy.to_string());
    for (text, shown) in [
        ("http://p:3128/", "http://p:3128"),
        ("p:3128", "http://p:3128"),
        ("p", "http://p:80"),
        ("socks5://[::1]", "socks5://[::1]:1080"),
        ("socks5h://u:p@p:1", "socks5h://u:***@p:1"),
    ] {
        assert_eq!(proxy(text).unwrap(), shown);
    }
    for text in ["", "ftp://p:1", "p:x", "socks5://u:sesame@"] {
        let error = proxy(text).unwrap_err();
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn whatever_stands_in_it_an_address_is_fit_to_be_shown() {
    for (name, c) in HOSTILE.iter().filter(|(_, c)| *c != '\0') {
        let word = format!("a{c}b");
        let path = PathBuf::from(&word);
        for target in [
            Target::Unix {
                path: path.clone(),
                settings: UnixSettings::default(),
            },
            Target::Pty { path: path.clone() },
            Target::Serial {
                path: path.clone(),
                settings: SerialSettings::default(),
            },
            Target::Memory { name: word.clone() },
            Target::Exec {
                argv: vec![word.clone(), format!("'{c}")],
                dir: Some(path),
                pty: true,
            },
        ] {
            let endpoint = Endpoint::new(&[], target).unwrap_or_else(|e| panic!("{name}: {e}"));
            let text = endpoint.to_string();
            assert!(text.chars().all(is_printable), "{name}: {text:?}");
            assert_eq!(parse(&text), endpoint, "{name}");
        }
        // Where it stands raw in an address that is none.
        for address in [
            format!("tcp:{c}:1"),
            format!("unix:a{c},b"),
            format!("{c}:x"),
        ] {
            let error = address.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.chars().all(is_printable), "{name}: {error:?}");
        }
    }
}

#[test]
fn an_unescaped_ampersand_separates_only_in_the_query_form() {
    let error = "serial:/dev/x?baud=9600&".parse::<Endpoint>().unwrap_err();
    assert_eq!(error.position(), 25);
}

#[test]
fn command_lines_keep_their_commas_and_question_marks() {
    let nested = "exec:ssh host cepa pipe stdio: serial:/dev/ttyUSB0,baud=9600?x=y";
    let words = [
        "ssh",
        "host",
        "cepa",
        "pipe",
        "stdio:",
        "serial:/dev/ttyUSB0,baud=9600?x=y",
    ];
    assert_eq!(parse(nested).target(), &exec(&words));
    // In quotes even the key's own text is the command's.
    let quoted = "exec:cepa connect 'exec:cat,dir=/inner' \"?dir=x\",dir=/outer";
    match parse(quoted).target() {
        Target::Exec {
            argv,
            dir,
            pty: false,
        } => {
            assert_eq!(argv[2], "exec:cat,dir=/inner");
            assert_eq!(argv[3], "?dir=x");
            assert_eq!(dir.as_deref(), Some("/outer".as_ref()));
        }
        other => panic!("{other:?}"),
    }
    // A key of no meaning to exec stays in the command, as does one without "=".
    assert_eq!(
        parse("exec:a b,dirs=1,dir c").target(),
        &exec(&["a", "b,dirs=1,dir", "c"])
    );
    assert_eq!(
        parse("exec:a '#' b'#'c#d").target(),
        &exec(&["a", "#", "b#c#d"])
    );
    assert_eq!(
        parse("exec:curl 100%,x").target(),
        &exec(&["curl", "100%,x"])
    );
}

#[test]
fn what_a_target_can_do() {
    // Many at a time, a line, a network connection, a socket, one stream and no other.
    for (address, can) in [
        ("tcp:h:1", [true, false, true, true, false]),
        ("unix:/x", [true, false, false, true, false]),
        ("memory:x", [true, false, false, false, false]),
        ("stdio:", [false, false, false, false, true]),
        ("fd:3", [false, false, false, false, true]),
        ("exec:x", [false, false, false, false, true]),
        ("exec:x,pty=yes", [false, false, false, false, true]),
        ("ssh:x", [false, false, false, false, true]),
        ("serial:/x", [false, true, false, false, false]),
        ("tcp:h:1,bind=::1", [true, false, false, true, false]),
        ("quic:h:1", [true, false, true, true, false]),
        ("quic:h:1,interface=eth0", [true, false, false, true, false]),
        ("ws:h:1,mark=7", [true, false, false, true, false]),
        ("rfc2217:h:1", [true, true, false, false, false]),
        ("pty:/x", [false, true, false, false, false]),
    ] {
        let e = parse(address);
        let found = [
            e.accepts_many(),
            e.is_line(),
            e.is_network(),
            e.is_socket(),
            e.has_one_stream(),
        ];
        assert_eq!(found, can, "{address}");
    }
}

#[test]
fn parts() {
    let endpoint = parse("mux+tls+serial:/dev/ttyUSB0,baud=9600,data=5,parity=odd");
    assert_eq!(endpoint.layers(), [Layer::Mux, Layer::Tls]);
    assert_eq!(endpoint.scheme(), "serial");
    let settings = SerialSettings {
        baud: 9600,
        data: DataBits::Five,
        parity: Parity::Odd,
        ..SerialSettings::default()
    };
    assert_eq!(
        endpoint.target(),
        &Target::Serial {
            path: "/dev/ttyUSB0".into(),
            settings
        }
    );
    assert_eq!(endpoint.with_layers(&[]).to_string(), {
        "serial:/dev/ttyUSB0,baud=9600,data=5,parity=odd"
    });
    // A device is named as every terminal program takes it.
    for (short, long) in [
        ("/dev/ttyUSB0", "serial:/dev/ttyUSB0"),
        (
            "/dev/serial/by-id/usb-A:0,baud=9600",
            "serial:/dev/serial/by-id/usb-A:0,baud=9600",
        ),
    ] {
        assert_eq!(parse(short), parse(long));
    }
    assert_eq!(
        parse("tcp:[::1]:7").target(),
        &Target::Tcp {
            host: "::1".to_owned(),
            port: 7,
            settings: TcpSettings::default(),
        },
        "the brackets belong to the text"
    );
    assert_eq!(parse("fd:5").target(), &Target::Fd { read: 5, write: 5 });
}

#[test]
fn a_link_gets_the_settings_of_the_line() {
    let endpoint = parse("mux+tls+link?escape=xonxoff&mtu=240&duplex=half+tcp:a:1");
    let link_settings = LinkSettings {
        escape: Escapes::XonXoff,
        mtu: Some(240),
        duplex: Duplex::Half,
    };
    assert_eq!(endpoint.layers()[2], Layer::Link(link_settings));
    let printed = "mux+tls+link,escape=xonxoff,mtu=240,duplex=half+tcp:a:1";
    assert_eq!(endpoint.to_string(), printed);
    assert_eq!(parse("link,escape=least+stdio:").layers(), [Layer::LINK]);
    let serial = parse("serial:/d?mtu=240&duplex=half");
    let Target::Serial { settings, .. } = serial.target() else {
        panic!("{serial}");
    };
    assert_eq!((settings.mtu, settings.duplex), (Some(240), Duplex::Half));
}

/// The text, the column, a part of what was expected, the suggestion.
#[test]
fn errors_name_the_column_and_the_nearest_word() {
    let cases: &[(&str, usize, &str, Option<&str>)] = &[
        ("", 1, "SCHEME:TARGET", None),
        ("tcp", 1, "SCHEME:TARGET", Some("tcp:")),
        // The column is that of what was written.
        ("/dev/ttyUSB0,buad=9600", 14, "serial's keys", Some("baud")),
        ("/run/x", 1, "SCHEME:TARGET", Some("unix:/run/x")),
        (
            "localhost:7000",
            1,
            "a scheme (tcp, ws, wss, quic, unix",
            Some("tcp:localhost:7000"),
        ),
        ("serail:/dev/x", 1, "a scheme", Some("serial")),
        ("TCP:a:1", 1, "a scheme", Some("tcp")),
        ("mux+tsl+tcp:a:1", 5, "a layer (mux, tls, ", Some("tls")),
        ("tls?key=rwa+tcp:a:1", 1, "tls?key=raw", Some("tls?key=raw")),
        ("tls?kind=raw+tcp:a:1", 1, "tls?key=raw", None),
        ("mux+tls+tpc:a:1", 9, "a scheme", Some("tcp")),
        ("tcp+mux:a:1", 1, "a layer", None),
        ("+tcp:a:1", 1, "a layer", None),
        ("tcp:7000", 5, "HOST:PORT", None),
        ("tcp::7000", 5, "a host before", None),
        ("tcp:a:", 7, "a port", None),
        ("tcp:a:+1", 7, "a port", None),
        ("tcp:a:65536", 7, "a port", None),
        ("tcp:a b:1", 6, "a host name", None),
        ("tcp:::1:7000", 5, "a host before", None),
        ("tcp:fe80::1:7000", 5, "in brackets", None),
        ("tcp:[::1", 5, "\"]\"", None),
        ("tcp:[::g]:1", 6, "an IPv6 address", None),
        ("tcp:[::1%]:1", 6, "an IPv6 address", None),
        ("tcp:[fe80::1%25eth0]:1", 13, "plain \"%\"", Some("%eth0")),
        ("tcp:[::1]7000", 10, "\":PORT\"", None),
        ("tcp:a:1,window=1", 9, "tcp's keys", None),
        ("tcp:a:1,nodely=no", 9, "tcp's keys", Some("nodelay")),
        ("quic:a:1,keepalive=no", 20, "1 to 21845", None),
        ("quic:a:1,keepalive=21846", 20, "1 to 21845", None),
        ("quic:a:1,nodelay=no", 10, "quic's keys", None),
        ("quic:a:1/x", 9, "the end of the address", None),
        ("qiuc:a:1", 1, "a scheme", Some("quic")),
        ("tcp:a:1,bind=localhost", 14, "an IP address", None),
        ("tcp:a:1,interface=a/b", 19, "a network interface", None),
        (
            "tcp:a:1,interface=0123456789abcdef",
            19,
            "a network interface",
            None,
        ),
        ("tcp:a:1,mark=4294967296", 14, "a mark", None),
        ("tcp:a:1,mark=0xg", 14, "a mark", None),
        ("rfc2217:h", 9, "HOST:PORT", None),
        ("rfc2217:h:1/x", 12, "the end of the address", None),
        ("rfc2217:h:1,boud=9600", 13, "rfc2217's keys", Some("baud")),
        ("rfc2217:h:1,exclusive=no", 13, "rfc2217's keys", None),
        ("unix:", 6, "the path of a socket", None),
        (
            "tcp:a:1,proxy=http://p",
            23,
            "\":PORT\" behind an HTTP proxy",
            None,
        ),
        (
            "tcp:a:1,proxy=http://u:x@[::1]/",
            31,
            "\":PORT\" behind an HTTP",
            None,
        ),
        ("tcp:a:1,proxy=http://", 22, "HOST:PORT", None),
        ("tcp:a:1,proxy=socks5://:1", 24, "a host before", None),
        ("tcp:a:1,proxy=socks:p:1", 15, "a proxy", Some("socks5h://")),
        ("tcp:a:1,proxy=socks5:p", 15, "a proxy", Some("socks5://")),
        ("tcp:a:1,proxy=http:p", 15, "a proxy", Some("http://")),
        ("tcp:a:1,proxy=p:80", 15, "a proxy", None),
        ("tcp:a:1,keepalive=0", 19, "seconds", None),
        (
            "tcp:a:1,proxy-from=::1",
            20,
            "proxy-protocol=yes beside",
            Some("proxy-protocol=yes"),
        ),
        (
            "tcp:a:1,proxy-protocol=yes,proxy-from=x",
            39,
            "networks",
            None,
        ),
        ("tcp:a:1:2,keepalive=1", 5, "in brackets", None),
        ("unix:/a,b", 9, "unix's keys", None),
        ("unix:/a?", 9, "unix's keys", None),
        ("unix:/a,mode=0999", 14, "octal", None),
        ("unix:/a,mode=1777", 14, "octal", None),
        ("unix:/a,framed=maybe", 16, "framed=yes|no", None),
        ("unix:/a,framed,framed", 16, "each key once", None),
        ("unix:/a,frames", 9, "unix's keys", Some("framed")),
        ("unix:/a,mode", 13, "\"=\" and a value", Some("mode=")),
        ("serial:/d,lock=maybe", 16, "lock=yes|no", None),
        ("pty:/a,b", 7, "%2C", None),
        ("pty:/a?", 7, "%3F", None),
        ("unix:/a%2", 8, "two hex digits", None),
        ("unix:/a%zz", 8, "two hex digits", None),
        ("unix:/a%00", 8, "NUL", None),
        ("unix:/ä%", 8, "two hex digits", None),
        ("stdio:x", 7, "nothing", None),
        ("fd:", 4, "a descriptor", None),
        ("fd:a", 4, "a descriptor", None),
        ("fd:-1", 4, "a descriptor", None),
        ("fd:3,", 6, "a descriptor", None),
        ("fd:4294967295", 4, "a descriptor", None),
        ("fd:3,4,5", 6, "a descriptor", None),
        ("exec:", 6, "a command", None),
        ("exec:   ", 6, "a command", None),
        ("exec:''", 6, "a command", None),
        ("exec:,dir=/x", 6, "a command", None),
        ("exec:a 'b", 8, "quote", None),
        ("exec:a \"b\\\"", 8, "quote", None),
        ("exec:a\\", 7, "backslash", None),
        ("exec:a #b", 8, "\"#\"", None),
        ("exec:a,dir=", 12, "a directory", None),
        ("exec:a,dir=x,dri=y", 14, "KEY=VALUE", Some("dir")),
        ("exec:a,dir=x,dir=y", 14, "once", None),
        ("serial:", 8, "the path of a serial device", None),
        (
            "serial:/d,buad=9600",
            11,
            "baud, data, parity",
            Some("baud"),
        ),
        ("serial:/d,baud", 15, "\"=\"", Some("baud=")),
        ("serial:/d,baud=fast", 16, "a baud rate", None),
        ("serial:/d,baud=0", 16, "a baud rate", None),
        ("serial:/d,baud=99999999999", 16, "a baud rate", None),
        (
            "serial:/d,parity=evn",
            18,
            "parity=none|odd|even",
            Some("even"),
        ),
        ("serial:/d,flow=rtscts", 16, "flow=none|hw|sw", None),
        ("serial:/d,data=9", 16, "data=5|6|7|8", None),
        ("serial:/d?baud=300&stop=3", 25, "stop=1|2", None),
        ("serial:/d,rs485=yes", 17, "rs485=keep|on|off", None),
        (
            "serial:/d,rs485=on,rts-on-send=hihg",
            32,
            "high|low",
            Some("high"),
        ),
        ("serial:/d,rs485=on,rts-before=101", 31, "0 to 100", None),
        ("serial:/d,rs485=on,rts-after=1000", 30, "0 to 100", None),
        ("serial:/d,rs485=on,rts-after=-1", 30, "0 to 100", None),
        (
            "serial:/d,rts-after=5",
            21,
            "rs485=on beside rts-after",
            None,
        ),
        (
            "serial:/d,rs485=off,rx-during-tx=yes",
            34,
            "rs485=on beside rx-during-tx",
            None,
        ),
        ("serial:/d,rs485=on,rts=on", 24, "no rts=", None),
        (
            "serial:/d,flow=hw,rs485=on",
            16,
            "another flow control",
            None,
        ),
        (
            "serial:/d,rs485=on,rx-during-rx=yes",
            20,
            "KEY=VALUE",
            Some("rx-during-tx"),
        ),
        ("serial:/d?baud=300,stop=1", 16, "a baud rate", None),
        ("serial:/d,", 11, "KEY=VALUE", None),
        ("serial:/d,mtu=63", 15, "64 to 4096", None),
        ("serial:/d,duplex=haf", 18, "duplex=full|half", Some("half")),
        (
            "link?mut=64+stdio:",
            6,
            "(escape, mtu, duplex)",
            Some("mtu"),
        ),
        (
            "tls+link,escape=xon+stdio:",
            17,
            "escape=least|xonxoff|control",
            Some("xonxoff"),
        ),
        ("link?mtu=4097+stdio:", 10, "64 to 4096", None),
        ("link?+stdio:", 6, "KEY=VALUE", None),
        ("linkx+stdio:", 1, "a layer", Some("link")),
        ("pty:", 5, "the path of the link", None),
        ("memory:", 8, "the name", None),
        ("memory:%ff", 8, "UTF-8", None),
        ("memory:\0", 8, "NUL", None),
    ];
    for (text, position, expected, nearest) in cases {
        let error = text.parse::<Endpoint>().expect_err(text);
        assert_eq!(error.position(), *position, "{error}");
        assert!(error.expected().contains(expected), "{error}");
        assert_eq!(error.nearest(), *nearest, "{error}");
    }
}

#[test]
fn errors_are_one_short_line() {
    let error = format!("unix:/a\nb,{}", "x".repeat(5000))
        .parse::<Endpoint>()
        .unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    assert!(line.len() < 500, "{line}");
    assert_eq!(
        "serial:/d,buad=1"
            .parse::<Endpoint>()
            .unwrap_err()
            .to_string(),
        "invalid address \"serial:/d,buad=1\": column 11: expected KEY=VALUE with one of serial's keys \
         (baud, data, parity, stop, flow, exclusive, lock, dtr, rts, rs485, rts-on-send, rts-before, rts-after, \
         rx-during-tx, mtu, duplex); did you mean \"baud\"?"
    );
}

#[test]
fn parts_that_no_text_stands_for_are_refused() {
    let serial = |baud| Target::Serial {
        path: "/d".into(),
        settings: SerialSettings {
            baud,
            ..SerialSettings::default()
        },
    };
    for target in [
        Target::Tcp {
            host: "a b".to_owned(),
            port: 1,
            settings: TcpSettings::default(),
        },
        Target::Tcp {
            host: String::new(),
            port: 1,
            settings: TcpSettings::default(),
        },
        Target::Tcp {
            host: "::g".to_owned(),
            port: 1,
            settings: TcpSettings::default(),
        },
        Target::Unix {
            path: PathBuf::new(),
            settings: UnixSettings::default(),
        },
        Target::Fd {
            read: u32::MAX,
            write: 0,
        },
        exec(&[]),
        exec(&["", "a"]),
        exec(&["a\0"]),
        Target::Memory {
            name: String::new(),
        },
        serial(0),
    ] {
        assert!(Endpoint::new(&[], target.clone()).is_err(), "{target:?}");
    }
    assert!(Endpoint::new(&[Layer::Tls], serial(50)).is_ok());
}

fn any_path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(1..=255u8, 1..30).prop_map(|b| PathBuf::from(OsString::from_vec(b)))
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z,?=%'\"# \\\\]{0,12}",
        "[,?]dir=[a-z/]{0,3}",
        any::<String>().prop_map(|s| s.replace('\0', "")),
    ]
}

fn any_settings() -> impl Strategy<Value = SerialSettings> {
    let data = [
        DataBits::Five,
        DataBits::Six,
        DataBits::Seven,
        DataBits::Eight,
    ];
    let parity = [Parity::None, Parity::Odd, Parity::Even];
    let stop = [StopBits::One, StopBits::Two];
    let flow = [
        FlowControl::None,
        FlowControl::Hardware,
        FlowControl::Software,
    ];
    let lines = [ModemLine::Keep, ModemLine::On, ModemLine::Off];
    let choices = (
        50..=20_000_000u32,
        prop::sample::select(data.to_vec()),
        prop::sample::select(parity.to_vec()),
        prop::sample::select(stop.to_vec()),
        prop::sample::select(flow.to_vec()),
        any::<bool>(),
        prop::sample::select(lines.to_vec()),
        prop::sample::select(lines.to_vec()),
        any_rs485(),
        any_link(),
        any_lock(),
    );
    choices.prop_map(
        |(baud, data, parity, stop, flow, exclusive, dtr, rts, rs485, link, lock)| {
            // RS-485 has RTS for itself.
            let on = matches!(rs485, Rs485::On(_));
            let hardware = flow == FlowControl::Hardware;
            SerialSettings {
                baud,
                data,
                parity,
                stop,
                flow: if on && hardware {
                    FlowControl::None
                } else {
                    flow
                },
                exclusive,
                lock,
                dtr,
                rts: if on { ModemLine::Keep } else { rts },
                rs485,
                mtu: link.mtu,
                duplex: link.duplex,
            }
        },
    )
}

fn any_link() -> impl Strategy<Value = LinkSettings> {
    let escapes = [Escapes::Least, Escapes::XonXoff, Escapes::Control];
    let choices = (
        prop::sample::select(escapes.to_vec()),
        prop::option::of(MTU),
        prop::sample::select(vec![Duplex::Full, Duplex::Half]),
    );
    choices.prop_map(|(escape, mtu, duplex)| LinkSettings {
        escape,
        mtu,
        duplex,
    })
}

fn any_layer() -> impl Strategy<Value = Layer> {
    prop_oneof![
        prop::sample::select(Layer::ALL.to_vec()),
        any_link().prop_map(Layer::Link),
    ]
}

fn any_rs485() -> impl Strategy<Value = Rs485> {
    let mode = (any::<bool>(), 0..=100u8, 0..=100u8, any::<bool>()).prop_map(
        |(rts_on_send, rts_before, rts_after, rx_during_tx)| {
            Rs485::On(Rs485Mode {
                rts_on_send,
                rts_before,
                rts_after,
                rx_during_tx,
            })
        },
    );
    prop_oneof![Just(Rs485::Keep), Just(Rs485::Off), mode]
}

fn any_network() -> impl Strategy<Value = Network> {
    (any::<std::net::IpAddr>(), 0..=128u8)
        .prop_filter_map("too many bits", |(ip, bits)| Network::new(ip, bits))
}

fn any_way() -> impl Strategy<Value = Option<Box<TcpWay>>> {
    (
        prop::option::of(any::<std::net::IpAddr>()),
        prop::option::of("[a-z0-9.:_-]{1,15}"),
        prop::option::of(any::<u32>()),
    )
        .prop_map(|(bind, interface, mark)| {
            let way = TcpWay {
                bind,
                interface,
                mark,
                shared_port: false,
            };
            (way != TcpWay::default()).then(|| Box::new(way))
        })
}

fn any_quic() -> impl Strategy<Value = QuicSettings> {
    (1..=21_845u16, any_way(), prop::option::of(any_proxy())).prop_map(|(keepalive, way, proxy)| {
        QuicSettings {
            keepalive,
            way,
            proxy: proxy.map(Box::new),
        }
    })
}

fn any_tcp() -> BoxedStrategy<TcpSettings> {
    (
        prop::option::of(1..=32_767u16),
        prop::option::of(1..=86_400u32),
        any::<bool>(),
        any_way(),
        prop::option::of(prop::collection::vec(any_network(), 1..4)),
        prop::option::of(any_proxy()),
    )
        .prop_map(
            |(keepalive, user_timeout, nodelay, way, proxy_from, proxy)| TcpSettings {
                keepalive,
                user_timeout,
                nodelay,
                way,
                proxy_from: proxy_from.map(Into::into),
                proxy: proxy.map(Box::new),
            },
        )
        .boxed()
}

fn any_proxy() -> impl Strategy<Value = Proxy> {
    let kinds = vec![ProxyKind::Socks5, ProxyKind::Socks5h, ProxyKind::Http];
    let login = ("[a-z%@,?&/# é]{1,9}", "[ -~]{0,9}").prop_map(|(user, password)| ProxyLogin {
        user,
        password: password.into(),
    });
    (
        prop::sample::select(kinds),
        any_host(),
        1..=u16::MAX,
        prop::option::of(login),
    )
        .prop_map(|(kind, host, port, login)| Proxy {
            kind,
            host,
            port,
            login,
        })
}

fn any_ws() -> impl Strategy<Value = WsSettings> {
    let value = "[!-~]([ -~]{0,9}[!-~])?";
    let header =
        ("[A-Z][a-z]{1,4}-[a-z]{1,4}", value).prop_map(|(name, value)| (name, value.into()));
    let tls = (
        prop::option::of(any::<[u8; 32]>()),
        prop::option::of(any_path()),
        prop::option::of(any_path()),
    )
        .prop_map(|(pin, cert, key)| WsTls { pin, cert, key });
    (
        any_tcp(),
        prop::option::of(value.prop_map(String::from)),
        prop::collection::vec(header, 0..3),
        prop::option::of(1..=32_767u16),
        prop::option::of(tls),
    )
        .prop_map(|(tcp, host, headers, ping, tls)| WsSettings {
            tcp,
            host,
            headers,
            ping,
            tls,
        })
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9._-]{1,20}",
        any::<std::net::Ipv4Addr>().prop_map(|a| a.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|a| a.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|a| format!("{a}%eth0")),
    ]
}

fn any_unix() -> impl Strategy<Value = UnixSettings> {
    let group = any_text().prop_filter("empty", |n| !n.is_empty());
    (
        prop::option::of(0..=0o777u16),
        prop::option::of(group),
        any::<bool>(),
    )
        .prop_map(|(mode, group, framed)| UnixSettings {
            mode,
            group,
            framed,
        })
}

fn any_lock() -> impl Strategy<Value = SerialLock> {
    prop_oneof![
        Just(SerialLock::Usual),
        Just(SerialLock::Yes),
        Just(SerialLock::No),
        any_path().prop_map(|path| SerialLock::At(Box::new(std::path::Path::new("/").join(path)))),
    ]
}

/// Boxed: on the stack all of them take too much.
fn any_rfc2217() -> BoxedStrategy<Target> {
    (any_host(), any::<u16>(), any_tcp(), any_settings())
        .prop_map(|(host, port, tcp, line)| {
            let line = SerialSettings {
                exclusive: true,
                lock: SerialLock::Usual,
                rs485: Rs485::Keep,
                ..line
            };
            let tcp = TcpSettings {
                proxy_from: None,
                ..tcp
            };
            Target::Rfc2217 {
                host,
                port,
                settings: Box::new(Rfc2217Settings { tcp, line }),
            }
        })
        .boxed()
}

fn any_ssh() -> BoxedStrategy<Target> {
    let name = || "[a-z0-9._][a-z0-9._-]{0,5}";
    let host = prop_oneof![
        name().prop_map(|host| host),
        any::<std::net::Ipv6Addr>().prop_map(|at| at.to_string())
    ];
    let values = || prop::collection::vec("[^\\p{Cc}]{1,9}", 0..3);
    (
        prop::option::of(name()),
        host,
        prop::option::of(1..=u16::MAX),
        values(),
        values(),
    )
        .prop_map(|(user, host, port, services, allow_remote)| Target::Ssh {
            user,
            host,
            port,
            settings: Box::new(SshSettings {
                services,
                allow_remote,
            }),
        })
        .boxed()
}

fn any_target() -> impl Strategy<Value = Target> {
    let argv =
        ("[^\0]{1,10}", prop::collection::vec(any_text(), 0..5)).prop_map(|(first, rest)| {
            let mut argv = vec![first];
            argv.extend(rest);
            argv
        });
    prop_oneof![
        (any_host(), any::<u16>(), any_tcp()).prop_map(|(host, port, settings)| Target::Tcp {
            host,
            port,
            settings
        }),
        (any_host(), any::<u16>(), "/[a-z?,%&=/]{0,9}", any_ws()).prop_map(
            |(host, port, path, settings)| Target::Ws {
                host,
                port,
                path,
                settings: Box::new(settings),
            }
        ),
        (any_host(), any::<u16>(), any_quic()).prop_map(|(host, port, settings)| Target::Quic {
            host,
            port,
            settings: Box::new(settings)
        }),
        (any_path(), any_unix()).prop_map(|(path, settings)| Target::Unix { path, settings }),
        Just(Target::Stdio),
        (0..1000u32, 0..1000u32).prop_map(|(read, write)| Target::Fd { read, write }),
        (argv, prop::option::of(any_path()), any::<bool>())
            .prop_map(|(argv, dir, pty)| Target::Exec { argv, dir, pty }),
        any_ssh(),
        (any_path(), any_settings()).prop_map(|(path, settings)| Target::Serial { path, settings }),
        any_rfc2217(),
        any_path().prop_map(|path| Target::Pty { path }),
        any_text()
            .prop_filter("empty", |n| !n.is_empty())
            .prop_map(|name| Target::Memory { name }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn print_then_parse_is_the_same(
        target in any_target(),
        layers in prop::collection::vec(any_layer(), 0..4),
    ) {
        let endpoint = Endpoint::new(&layers, target).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let text = endpoint.revealed().to_string();
        prop_assert!(text.chars().all(is_printable), "{:?}", text);
        prop_assert_eq!(parse(&text), endpoint);
    }

    #[test]
    fn parse_never_panics_and_prints_canonically(text in prop_oneof![
        any::<String>(),
        "link[,?](escape|mtu|duplex)=[0-9a-z]{1,7}([,&](mtu|duplex)=[0-9a-z]{1,4}){0,2}\\+tcp:a:1",
        "((mux|tls)\\+){0,2}(tcp|ws|wss|unix|stdio|fd|exec|serial|rfc2217|pty|memory):[ -~]{0,30}",
        "wss?:h:1/[a-z]?[,?](host|header|ping|pin|proxy)=[ -~]{0,30}",
        "tcp:h:1,proxy=(socks5|socks5h|http)://[a-z:@%0-9\\[\\]]{0,20}:1",
        "exec:[a-c,?=&dir'\"\\\\# %]{0,20}",
        "ssh:([a-c-]{0,3}@)?[a-c\\[\\]:1-]{0,9}(:[0-9]{1,3})?([,?](service|allow-remote)=[ -~]{0,9}){0,2}",
        "rfc2217:h:1[,?](baud|keepalive|flow|dtr)=[0-9a-z]{1,3}([,&](parity|mtu|proxy|rts)=[0-9a-z]{1,3}){0,2}",
        "serial:/d[,?](baud|data|flow|stop)=[0-9a-z]{1,3}([,&](baud|data|flow|stop)=[0-9a-z]{1,3}){0,2}",
    ]) {
        match text.parse::<Endpoint>() {
            Ok(endpoint) => {
                let printed = endpoint.revealed().to_string();
                prop_assert!(printed.chars().all(is_printable), "{:?}", printed);
                prop_assert_eq!(&parse(&printed), &endpoint);
                prop_assert_eq!(parse(&printed).revealed().to_string(), printed);
            }
            Err(error) => {
                prop_assert!(error.position() >= 1);
                prop_assert!(error.position() <= text.chars().count() + 1);
                prop_assert!(error.to_string().chars().all(is_printable));
            }
        }
    }
}

#[test]
fn what_is_for_others_leaves_out_this_machine_s_own_way() {
    for (text, others) in [
        (
            "tcp:h:1,keepalive=9,bind=192.0.2.1,proxy=socks5h://u:p@q:1",
            "tcp:h:1,keepalive=9",
        ),
        (
            "quic:h:1,keepalive=9,interface=eth0,mark=3,proxy=socks5h://u:p@q:1",
            "quic:h:1,keepalive=9",
        ),
    ] {
        assert_eq!(parse(text).for_others().to_string(), others);
    }
}

#[test]
fn what_ssh_is_given_begins_no_option_and_holds_nothing_for_a_shell() {
    for (text, column, expected) in [
        ("ssh:", 5, "a host"),
        ("ssh:-oProxyCommand=x", 5, "cannot begin with \"-\""),
        ("ssh:-l@h", 5, "cannot begin with \"-\""),
        ("ssh:me@-h", 8, "cannot begin with \"-\""),
        ("ssh:a b", 6, "letters, digits"),
        ("ssh:a;b", 6, "letters, digits"),
        ("ssh:$(x)@h", 5, "letters, digits"),
        ("ssh:a`b`@h", 6, "letters, digits"),
        ("ssh:@h", 5, "a user before"),
        ("ssh:me:secret@h", 7, "letters, digits"),
        ("ssh:h:", 7, "a port"),
        ("ssh:h:0", 7, "a port, 1 to 65535"),
        ("ssh:h:65536", 7, "a port"),
        ("ssh:::1", 5, "in brackets"),
        ("ssh:[x]", 6, "an IPv6 address"),
        ("ssh:[::1]x", 10, "\":PORT\""),
        ("ssh://h", 5, "without \"//\""),
        ("ssh:h/x", 6, "letters, digits"),
        ("ssh:h,user=x", 7, "service, allow-remote"),
        ("ssh:h,service=", 15, "service=[NAME=]ADDR"),
        ("ssh:h,service=a%0Ab", 15, "without control characters"),
    ] {
        let error = text.parse::<Endpoint>().unwrap_err();
        assert_eq!(error.position(), column, "{error}");
        assert!(error.expected().contains(expected), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let many = format!("ssh:h{}", ",service=1".repeat(17));
    assert!(many.parse::<Endpoint>().is_err());
}
