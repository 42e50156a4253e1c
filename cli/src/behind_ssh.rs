//! What a command wants of a machine that `ssh:` leads to.
//!
//! There is nothing to look up there: ssh leads to whatever its user may reach, by its address, as in `ssh -L`. So a service that is written as
//! an address (a port, HOST:PORT, a path, `exec:…`) becomes one that the far end is told to serve (`ssh:HOST,service=…`), and only
//! that is served. Any other word is a name, of a service in the address or of one that the far end has by itself.

use cepa::transports::endpoint::{SCHEMES, SshSettings};
use cepa::transports::{Endpoint, Target};

use crate::exit::{Code, Failure};
use crate::values::{DialTarget, Service};
#[cfg(feature = "forward")]
use crate::values::{Dynamic, Local, Remote, SOCKS_SERVICE};

/// What `ssh -D` allows: everything that can be reached from there.
#[cfg(feature = "forward")]
const ANYWHERE: &str = "socks:*:*,0.0.0.0/0:*,[::/0]:*";

/// The service of a command, which may be an address there.
pub(crate) fn service(at: &mut DialTarget, service: &mut String) -> Result<(), Failure> {
    edit(at, |far| {
        *service = offered(far, service)?;
        Ok(())
    })
}

/// The services of listeners, and where the far end is to listen.
#[cfg(feature = "forward")]
pub(crate) fn forwarded(
    at: &mut DialTarget,
    locals: &mut [Local],
    dynamics: &[Dynamic],
    remotes: &[Remote],
) -> Result<(), Failure> {
    edit(at, |far| {
        for local in locals {
            local.service = offered(far, &local.service)?;
        }
        for Dynamic(local) in dynamics {
            if local.service == SOCKS_SERVICE && named(far, SOCKS_SERVICE).is_none() {
                far.services.push(format!("{SOCKS_SERVICE}={ANYWHERE}"));
            }
        }
        for remote in remotes {
            let place = remote.place.to_string();
            if !far.allow_remote.contains(&place) {
                far.allow_remote.push(place);
            }
        }
        Ok(())
    })
}

/// Changes what is served behind `ssh:`; other addresses stay as they are.
fn edit(
    at: &mut DialTarget,
    change: impl FnOnce(&mut SshSettings) -> Result<(), String>,
) -> Result<(), Failure> {
    let usage = |why: String| Failure::new(Code::Usage, why);
    let DialTarget::Place(address) = at else {
        return Ok(());
    };
    let mut target = address.target().clone();
    let Target::Ssh { settings, .. } = &mut target else {
        return Ok(());
    };
    change(settings).map_err(usage)?;
    let changed = Endpoint::new(address.layers(), target);
    *address = changed.map_err(|e| usage(e.to_string()))?;
    Ok(())
}

/// The name by which the far end has what this word means, and is told to serve it where it is an address.
fn offered(far: &mut SshSettings, word: &str) -> Result<String, String> {
    let address = match address(word) {
        Some(address) if named(far, word).is_none() => address,
        _ => return Ok(word.to_owned()),
    };
    let name = address.parse::<Service>()?.name;
    match named(far, &name) {
        None => {
            far.services.push(address);
            Ok(name)
        }
        Some(there) if *there == address => Ok(name),
        // Two files that are called the same.
        Some(_) => {
            let mut names = (2..).map(|n| format!("{name}-{n}"));
            let name = names.find(|name| {
                named(far, name).is_none_or(|there| *there == format!("{name}={address}"))
            });
            let name = name.unwrap_or_default();
            if named(far, &name).is_none() {
                far.services.push(format!("{name}={address}"));
            }
            Ok(name)
        }
    }
}

/// The service of this name in the address.
fn named<'a>(far: &'a SshSettings, name: &str) -> Option<&'a String> {
    let is_named = |it: &&String| it.parse::<Service>().is_ok_and(|it| it.name == name);
    far.services.iter().find(is_named)
}

/// The address of a service, where the word is one and no name.
fn address(word: &str) -> Option<String> {
    if word.parse::<Service>().is_ok() {
        return (!word.contains('=') || word.parse::<Endpoint>().is_ok()).then(|| word.to_owned());
    }
    if word.starts_with('/') {
        return Some(format!("unix:{word}"));
    }
    let (host, port) = word.rsplit_once(':')?;
    let is_host = !SCHEMES.contains(&host) && (host.starts_with('[') || !host.contains(':'));
    (is_host && port.parse::<u16>().is_ok()).then(|| format!("tcp:{word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(word: &str) -> DialTarget {
        word.parse().unwrap()
    }

    fn shown(at: &DialTarget) -> String {
        let DialTarget::Place(address) = at else {
            panic!("a place")
        };
        address.to_string()
    }

    #[test]
    fn an_address_is_served_there_and_a_name_stays_one() {
        for (at, word, name, becomes) in [
            ("ssh:h", "5432", "5432", "ssh:h,service=5432"),
            (
                "ssh:h",
                "/run/db.sock",
                "db",
                "ssh:h,service=unix:/run/db.sock",
            ),
            (
                "ssh:h",
                "unix:/run/db.sock",
                "db",
                "ssh:h,service=unix:/run/db.sock",
            ),
            ("ssh:h", "/dev/ttyS1", "ttyS1", "ssh:h,service=/dev/ttyS1"),
            (
                "ssh:h",
                "db.lan:5432",
                "5432",
                "ssh:h,service=tcp:db.lan:5432",
            ),
            ("ssh:h", "[::1]:80", "80", "ssh:h,service=tcp:[::1]:80"),
            (
                "ssh:h",
                "exec:uptime",
                "uptime",
                "ssh:h,service=exec:uptime",
            ),
            ("ssh:h", "db", "db", "ssh:h"),
            ("ssh:h", "", "", "ssh:h"),
            (
                "ssh:h,service=5432=unix:/x",
                "5432",
                "5432",
                "ssh:h,service=5432=unix:/x",
            ),
            (
                "ssh:h,service=unix:/a/db.sock",
                "/b/db.sock",
                "db-2",
                "ssh:h,service=unix:/a/db.sock,service=db-2=unix:/b/db.sock",
            ),
            (
                "ssh:h,service=unix:/a/db.sock",
                "/a/db.sock",
                "db",
                "ssh:h,service=unix:/a/db.sock",
            ),
            ("tcp:h:1", "5432", "5432", "tcp:h:1"),
        ] {
            let (mut at, mut wanted) = (place(at), word.to_owned());
            service(&mut at, &mut wanted).unwrap();
            assert_eq!(
                (wanted.as_str(), shown(&at).as_str()),
                (name, becomes),
                "{word}"
            );
            // Once more, it is there.
            let mut again = word.to_owned();
            service(&mut at, &mut again).unwrap();
            assert_eq!(
                (again.as_str(), shown(&at).as_str()),
                (name, becomes),
                "{word}"
            );
        }
        let (mut at, mut many) = (place("ssh:h"), String::new());
        for n in 1..=16 {
            many = n.to_string();
            service(&mut at, &mut many).unwrap();
        }
        many.push('7');
        assert_eq!(service(&mut at, &mut many).unwrap_err().code, Code::Usage);
    }

    #[cfg(feature = "forward")]
    #[test]
    fn the_three_listeners_of_ssh_need_nothing_said_beside_them() {
        let mut at = place("ssh:h");
        let mut locals = ["1=5432", "2=/run/db.sock", "3=web"].map(|word| word.parse().unwrap());
        let dynamics = ["1080".parse().unwrap()];
        let remotes = ["8080=3000".parse().unwrap()];
        forwarded(&mut at, &mut locals, &dynamics, &remotes).unwrap();
        let names: Vec<&str> = locals.iter().map(|it| it.service.as_str()).collect();
        assert_eq!(names, ["5432", "db", "web"]);
        let DialTarget::Place(address) = &at else {
            panic!("a place")
        };
        let command = address.target().ssh_command().unwrap();
        assert_eq!(
            command.last().unwrap(),
            "cepa serve stdio: --allow any --service=5432 --service=unix:/run/db.sock \
             '--service=socks=socks:*:*,0.0.0.0/0:*,[::/0]:*' --allow-remote=8080"
        );
        // The far end reads it as it was meant.
        for service in [
            "5432",
            "unix:/run/db.sock",
            "socks=socks:*:*,0.0.0.0/0:*,[::/0]:*",
        ] {
            assert!(service.parse::<Service>().is_ok(), "{service}");
        }
    }
}
