//! The kinds of services, where a word is none of them.

use cepa::transports::ParseError;

use crate::words::nearest;

/// What stands in front of the first colon.
const KINDS: [&str; 9] = [
    "tcp", "unix", "exec", "serial", "pty", "files", "command", "socks", "echo",
];

/// What is wrong with the address of a service that is no address either: those have schemes that a service has not, and none of
/// those that only services have.
pub(crate) fn unknown(address: &str, e: &ParseError) -> String {
    let (kind, colon) = match address.split_once(':') {
        Some((kind, _)) => (kind, true),
        // A port that there is not, or a word.
        None if address.starts_with(|c: char| c.is_ascii_digit() || c == '+') => {
            return no_port(address).unwrap_or_else(|| e.to_string());
        }
        None => (address, false),
    };
    if let (false, true) = (colon, KINDS.contains(&kind)) {
        let example = match kind {
            "echo" => "echo:".to_owned(),
            "files" => "files:DIR".to_owned(),
            "command" => "command:/PROGRAM".to_owned(),
            kind => format!("{kind}:…"),
        };
        return format!("a colon is missing; give {example}");
    }
    if !e.expected().contains("scheme") || e.nearest().is_some() {
        return e.to_string();
    }
    match nearest(kind, KINDS) {
        Some(known) => {
            format!("there are no services of the kind {kind:?}; did you mean {known}:?")
        }
        None => format!(
            "there are no services of the kind {kind:?}, but {}: and cepa://PEERID@ADDR/SERVICE",
            KINDS.join(":, ")
        ),
    }
}

/// Why a number is no port.
pub(crate) fn no_port(word: &str) -> Option<String> {
    let is_number = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    (is_number && word.parse::<u16>().is_err())
        .then(|| format!("{word} is no port: ports end at 65535"))
}

#[cfg(test)]
mod tests {
    use crate::values::{Service, Target};

    #[test]
    fn who_writes_no_kind_of_services_reads_which_there_are() {
        for (word, said) in [
            ("x=fils:/tmp", "\"fils\"; did you mean files:?"),
            ("x=comand:/bin/ls", "did you mean command:?"),
            (
                "x=rsync:/tmp",
                "but tcp:, unix:, exec:, serial:, pty:, files:, command:, socks:, echo: and cepa://",
            ),
            ("up=echo", "a colon is missing; give echo:"),
            ("up=files", "give files:DIR"),
            ("up=ecko", "did you mean echo:?"),
            ("up=rsync", "but tcp:, unix:, exec:"),
            ("web=65536", "ports end at 65535"),
            ("web=0", "column"),
            ("web=+80", "column"),
            ("web=tcp:nowhere", "column"),
        ] {
            let why = word.parse::<Service>().unwrap_err();
            assert!(why.contains(said), "{word}: {why}");
        }
    }

    #[test]
    fn a_port_and_a_folder_need_no_name() {
        for (word, name) in [
            ("8080", "8080"),
            ("files:/tmp,ro", "files"),
            ("tcp:[::1]:80,nodelay=no", "80"),
            ("exec:bash", "bash"),
            ("exec:/bin/login,pty=yes", "login"),
            ("exec:sh -c 'a=b; echo $a'", "sh"),
            ("unix:/run/db.sock", "db"),
            ("/dev/ttyUSB0,baud=9600,watch=no", "ttyUSB0"),
            ("serial:/dev/ttyS1", "ttyS1"),
        ] {
            let service: Service = word.parse().unwrap();
            assert_eq!(service.name, name);
        }
        for word in ["0", "65536", "file", "pty:/tmp/x", "quic:a:1"] {
            let why = word.parse::<Service>().unwrap_err();
            assert!(why.contains("expected NAME=ADDR"), "{word}: {why}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (word, place) in [
            ("web=8080", "tcp:127.0.0.1:8080"),
            ("web=65535", "tcp:127.0.0.1:65535"),
        ] {
            let service: Service = word.parse().unwrap();
            let Target::Dial(endpoint) = service.target else {
                panic!("{word} is dialled");
            };
            assert_eq!(endpoint.to_string(), place);
        }
    }
}
