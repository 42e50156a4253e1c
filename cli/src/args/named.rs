//! What `config.toml` says of a name that a command dials, where the command line says nothing else.
//!
//! A name has become an address when the words were parsed; this adds its options. As with `ssh_config`, what was
//! typed counts first. The options that say whom to trust go together: one of them typed leaves out all of the file's.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::connect::Connect;
use super::console::Console;
#[cfg(feature = "files")]
use super::cp::Cp;
use super::exec::Exec;
#[cfg(feature = "forward")]
use super::forward::Forward;
use super::options::{Dialling, IdentityFile, LocalHints, Looking, Trust};
use crate::exit::{Code, Failure};
use crate::names::{self, Named, To};
use crate::settings::{Options, Trusting};
#[cfg(feature = "files")]
use crate::sides::Side;
#[cfg(feature = "forward")]
use crate::values::DialTarget;
use crate::words::TrustWord;

pub(super) fn connect(args: &mut Connect, matches: &ArgMatches) -> Result<(), Failure> {
    let Some(named) = named(matches)? else {
        return Ok(());
    };
    dialling(&mut args.dialling, &named.options);
    args.reconnect |= named.options.reconnect;
    service(&mut args.service, &named);
    Ok(())
}

pub(super) fn console(args: &mut Console, matches: &ArgMatches) -> Result<(), Failure> {
    let Some(named) = named(matches)? else {
        return Ok(());
    };
    dialling(&mut args.dialling, &named.options);
    args.reconnect |= named.options.reconnect;
    let typed = matches.value_source("escape") == Some(ValueSource::CommandLine);
    if let (false, Some(escape)) = (typed, named.options.escape) {
        args.escape = escape;
    }
    if args.log.is_none() && args.sits() {
        args.log.clone_from(&named.options.log);
    }
    service(&mut args.service, &named);
    Ok(())
}

/// The service of a target is one to connect to, and none that runs programs.
pub(super) fn exec(args: &mut Exec, matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(named) = named(matches)? {
        dialling(&mut args.dialling, &named.options);
    }
    Ok(())
}

#[cfg(feature = "forward")]
pub(super) fn forward(args: &mut Forward, matches: &ArgMatches) -> Result<(), Failure> {
    let Some(named) = named(matches)? else {
        return Ok(());
    };
    dialling(&mut args.dialling, &named.options);
    args.reconnect |= named.options.reconnect;
    if let (DialTarget::Place(_), Some((_, service))) =
        (&args.address, word(matches).and_then(|w| w.split_once('/')))
    {
        let why = format!("each -L names its service; leave /{service} out of the address");
        return Err(Failure::new(Code::Usage, why));
    }
    // A port alone is for the service that the file names.
    for local in &mut args.locals {
        if local.service.is_empty() {
            local.service.clone_from(&named.service);
        }
    }
    Ok(())
}

/// The sides of a copy have their names in words of their own.
#[cfg(feature = "files")]
pub(super) fn cp(args: &mut Cp) -> Result<(), Failure> {
    let word = args
        .from
        .iter()
        .chain([&args.to])
        .find_map(|side| Some(side.remote()?.word.clone()));
    let Some(name) = word.as_deref().and_then(names::in_word) else {
        return Ok(());
    };
    let named = names::dialled(name).map_err(|why| Failure::new(Code::Usage, why))?;
    dialling(&mut args.dialling, &named.options);
    args.reconnect |= named.options.reconnect;
    for side in args.from.iter_mut().chain([&mut args.to]) {
        if let Side::Remote(remote) = side {
            let in_address = match &named.to {
                To::Peer(address) => address.service(),
                To::Place(_) => "",
            };
            let service = if in_address.is_empty() {
                &named.service
            } else {
                in_address
            };
            if remote.service.is_empty() {
                service.clone_into(&mut remote.service);
            }
        }
    }
    Ok(())
}

/// The name that is dialled, without the `@`.
fn word(matches: &ArgMatches) -> Option<&str> {
    let word = matches.get_raw("address")?.next()?.to_str()?;
    names::in_word(word)
}

fn named(matches: &ArgMatches) -> Result<Option<Named>, Failure> {
    let named = word(matches).map(names::dialled).transpose();
    named.map_err(|why| Failure::new(Code::Usage, why))
}

/// An address with the service in it needs no other word.
fn service(given: &mut String, named: &Named) {
    let in_address = match &named.to {
        To::Peer(address) => address.service(),
        To::Place(_) => "",
    };
    if given.is_empty() && in_address.is_empty() {
        given.clone_from(&named.service);
    }
}

/// Commands that only look at a peer.
pub(super) fn looking(args: &mut Looking, matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(named) = named(matches)? {
        args.sharing.or(named.options.control);
        session(
            &mut args.trust,
            &mut args.local_hints,
            &mut args.identity,
            &named.options,
        );
    }
    Ok(())
}

fn dialling(args: &mut Dialling, options: &Options) {
    args.durable.or(options.durable, options.park);
    args.sharing.or(options.control);
    session(
        &mut args.trust,
        &mut args.local_hints,
        &mut args.identity,
        options,
    );
}

fn session(
    trust: &mut Trust,
    hints: &mut LocalHints,
    identity: &mut IdentityFile,
    options: &Options,
) {
    if !trust.says_something() {
        trust.expect.clone_from(&options.expect);
        trust.ca.clone_from(&options.ca);
        trust.trust = (options.trust == Some(Trusting::Any)).then_some(TrustWord::Any);
        trust.trust_new = options.trust == Some(Trusting::New);
    }
    hints.allowed |= options.local_hints;
    if identity.path.is_none() {
        identity.path.clone_from(&options.identity);
    }
}
