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
    if address.parse::<u16>().is_ok() {
        return format!("a port alone is no address; give tcp:127.0.0.1:{address}");
    }
    let Some((kind, _)) = address.split_once(':') else {
        return e.to_string();
    };
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

#[cfg(test)]
mod tests {
    use crate::values::Service;

    #[test]
    fn who_writes_no_kind_of_services_reads_which_there_are() {
        for (word, said) in [
            ("x=fils:/tmp", "\"fils\"; did you mean files:?"),
            ("x=comand:/bin/ls", "did you mean command:?"),
            (
                "x=rsync:/tmp",
                "but tcp:, unix:, exec:, serial:, pty:, files:, command:, socks:, echo: and cepa://",
            ),
            ("web=18080", "give tcp:127.0.0.1:18080"),
            ("web=tcp:nowhere", "column"),
        ] {
            let why = word.parse::<Service>().unwrap_err();
            assert!(why.contains(said), "{word}: {why}");
        }
    }
}
