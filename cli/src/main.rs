//! The `cepa` command-line tool: what a person types, over the `cepa` library.
//!
//! One file a command; `left_out/` has what stands in place of a part that a build leaves out. A command is an async function that gives `Ok(())` or a [`exit::Failure`];
//! `main` turns it into the exit code. Nothing here that a user of the library would miss.

// What parts that are left out would have used is dead then; the whole tool is judged.
#![cfg_attr(
    not(all(
        feature = "config",
        feature = "files",
        feature = "fleet",
        feature = "forward",
        feature = "mesh",
        feature = "tools"
    )),
    allow(dead_code)
)]

mod accept;
mod advice;
mod args;
mod ask;
mod behind_ssh;
#[cfg_attr(not(feature = "mesh"), path = "left_out/by_mesh.rs")]
mod by_mesh;
mod called;
mod child;
mod chosen;
mod chunk;
#[cfg(feature = "mesh")]
mod claims;
#[cfg(feature = "forward")]
mod client_ahead;
mod columns;
mod command_served;
#[cfg(feature = "completions")]
mod completions;
#[cfg(feature = "config")]
mod config;
mod connect;
mod connection;
mod console;
#[cfg_attr(not(feature = "mesh"), path = "left_out/control.rs")]
mod control;
#[cfg(feature = "files")]
mod cp;
#[cfg(feature = "tools")]
mod demo;
#[cfg_attr(not(feature = "forward"), path = "left_out/destination.rs")]
mod destination;
mod dial;
mod dial_failure;
mod direct;
mod direction;
mod events;
mod exec;
mod exit;
#[cfg(feature = "mesh")]
mod explain;
#[cfg_attr(not(feature = "files"), path = "left_out/files.rs")]
mod files;
mod first_contact;
#[cfg(feature = "mesh")]
#[cfg_attr(not(feature = "fleet"), path = "left_out/fleet.rs")]
mod fleet;
mod folder;
#[cfg(feature = "forward")]
mod forward;
mod gate;
mod held;
mod id;
mod init;
#[cfg(feature = "mesh")]
mod introduce;
#[cfg(feature = "mesh")]
mod invite;
mod inviting;
mod keep;
mod kinds;
#[cfg_attr(not(feature = "tools"), path = "left_out/layer_echo.rs")]
mod layer_echo;
mod limits;
mod line_holders;
mod linger;
mod log;
#[cfg(feature = "forward")]
mod lookups;
#[cfg(feature = "man")]
mod man;
mod manager;
#[cfg(feature = "mesh")]
mod mesh;
#[cfg_attr(not(feature = "mesh"), path = "left_out/mesh_node.rs")]
mod mesh_node;
#[cfg(feature = "mesh")]
mod metrics;
mod misread;
mod names;
#[cfg(feature = "mesh")]
mod node;
#[cfg_attr(not(feature = "mesh"), path = "left_out/numbers.rs")]
mod numbers;
mod offered;
#[cfg_attr(not(feature = "mdns"), path = "left_out/on_network.rs")]
mod on_network;
#[cfg_attr(not(feature = "passphrase"), path = "left_out/passphrase.rs")]
mod passphrase;
mod pausable;
mod peer;
#[cfg(feature = "tools")]
mod ping;
#[cfg(feature = "tools")]
mod pipe;
#[cfg(feature = "tools")]
mod piped;
#[cfg(feature = "tools")]
mod ports;
#[cfg(feature = "tools")]
mod probe;
mod programs;
#[cfg(feature = "files")]
mod progress;
#[cfg_attr(not(feature = "mesh"), path = "left_out/qr.rs")]
mod qr;
#[cfg(any(feature = "files", feature = "forward"))]
mod rate;
mod reach;
mod reconnect;
#[cfg(feature = "mesh")]
mod redeemed;
#[cfg_attr(not(feature = "mesh"), path = "left_out/references.rs")]
mod references;
#[cfg(feature = "mesh")]
mod relay;
#[cfg(feature = "mesh")]
mod reload;
#[cfg(feature = "completions")]
mod remembered;
#[cfg(feature = "forward")]
mod remote;
#[cfg_attr(not(feature = "forward"), path = "left_out/remote_place.rs")]
mod remote_place;
#[cfg_attr(not(feature = "forward"), path = "left_out/remote_served.rs")]
mod remote_served;
mod say;
#[cfg_attr(not(feature = "mesh"), path = "left_out/send.rs")]
mod send;
mod serve;
mod service;
mod service_check;
mod service_end;
mod service_form;
mod service_kept;
mod service_watched;
#[cfg(feature = "tools")]
mod services;
mod settings;
#[cfg_attr(not(feature = "config"), path = "left_out/settings_file.rs")]
mod settings_file;
#[cfg(feature = "mesh")]
mod share;
#[cfg_attr(not(feature = "mesh"), path = "left_out/sharing.rs")]
mod sharing;
#[cfg_attr(not(feature = "mesh"), path = "left_out/short_code.rs")]
mod short_code;
#[cfg(feature = "files")]
mod sides;
mod signal;
mod silent_line;
#[cfg(feature = "forward")]
mod socks;
#[cfg_attr(not(feature = "forward"), path = "left_out/socks_served.rs")]
mod socks_served;
mod splice;
mod splice_end;
#[cfg(test)]
mod splice_model;
mod stack;
#[cfg(feature = "forward")]
mod standing;
#[cfg(feature = "mesh")]
mod status;
#[cfg(feature = "forward")]
mod status_line;
#[cfg_attr(not(feature = "mesh"), path = "left_out/status_served.rs")]
mod status_served;
mod stderr;
#[cfg(feature = "config")]
mod toml_file;
#[cfg_attr(not(feature = "trace"), path = "left_out/trace.rs")]
mod trace;
mod trust;
mod upstream;
mod values;
#[cfg_attr(not(feature = "mesh"), path = "left_out/watched.rs")]
mod watched;
mod words;

use std::process::ExitCode;

use args::{Color, Command, Early, LogFormat};
use exit::{Code, Failure};

fn main() -> ExitCode {
    if let Some(code) = init::stand_in() {
        return code;
    }
    let words: Vec<_> = std::env::args_os().collect();
    let parsed = args::parse(&words);
    if match &parsed {
        Ok(cli) => cli.logging.log_format == LogFormat::Json,
        Err(_) => args::wants_json(&words),
    } {
        say::use_json();
    }
    if let Ok(cli) = &parsed {
        match cli.logging.color {
            Color::Auto => {}
            Color::Always => say::colour(true),
            Color::Never => say::colour(false),
        }
        if cli.command.is_quiet() {
            say::be_quiet();
        }
    }
    let result = match parsed {
        Ok(cli) => {
            trace::start(cli.logging.verbose, cli.command.says_events()).and_then(|verbose| {
                if cli.command.dials() {
                    by_proxy(cli.proxy.choice)?;
                    let settings = match cli.proxy.direct {
                        Some(_) => None,
                        None => settings_file::direct()?,
                    };
                    direct::decide(cli.proxy.direct, settings);
                }
                run(cli.command, verbose)
            })
        }
        Err(Early::Text(text)) => exit::print(&text),
        Err(Early::Failed(failure)) => Err(failure.with_error_status(args::error_status(&words))),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report()),
    };
    stderr::flush(LAST_LINES);
    code
}

/// What dials from here on goes by the proxy of the command line, or else of `config.toml`.
fn by_proxy(choice: Option<words::ProxyChoice>) -> Result<(), Failure> {
    let choice = match choice {
        Some(choice) => Some(choice),
        None => settings_file::proxy()?,
    };
    if let Some(proxies) = choice.map_or(Ok(None), words::ProxyChoice::proxies)? {
        dial::use_proxies(proxies);
    }
    Ok(())
}

/// How long whoever reads standard error may take for the last lines.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(1);

/// How long what was written over QUIC may take to be sent, which the system does not send by itself.
const LAST_BYTES: std::time::Duration = std::time::Duration::from_secs(2);

/// How long the end of what is under way may take to be reported, where that is shown.
const LAST_EVENTS: std::time::Duration = std::time::Duration::from_millis(500);

fn run(command: Command, verbose: bool) -> Result<(), Failure> {
    cepa::transports::raise_descriptor_limit();
    if command.serves_for_long() {
        say::stamp();
    }
    if command.is_watched() {
        numbers::start();
    }
    #[cfg(feature = "threads")]
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    #[cfg(not(feature = "threads"))]
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Other, format!("cannot start the runtime: {e}")))?;
    let result = runtime.block_on(async {
        match command {
            #[cfg(feature = "tools")]
            Command::Demo(args) => demo::run(args).await,
            Command::Serve(args) => serve::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Share(args) => share::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Relay(args) => relay::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Node(args) => node::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Reload(args) => reload::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Introduce(args) => introduce::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Status(args) => status::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Mesh(args) => mesh::run(args).await,
            Command::Connect(args) => connect::run(args).await,
            Command::Console(args) => console::run(args).await,
            Command::Exec(args) => exec::run(args).await,
            #[cfg(feature = "forward")]
            Command::Forward(args) => forward::run(args).await,
            #[cfg(feature = "files")]
            Command::Cp(args) => cp::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Send(args) => send::run(args).await,
            #[cfg(feature = "tools")]
            Command::Pipe(args) if args.listen => piped::run(args).await,
            #[cfg(feature = "tools")]
            Command::Pipe(args) => pipe::run(args).await,
            Command::Id(args) => id::run(args),
            #[cfg(feature = "mesh")]
            Command::Invite(args) => invite::invite(args).await,
            #[cfg(feature = "mesh")]
            Command::Join(args) => invite::join(args).await,
            #[cfg(feature = "mdns")]
            Command::Peer(args::Peer::Find(args)) => on_network::find(args).await,
            Command::Peer(args) => peer::run(args),
            #[cfg(feature = "config")]
            Command::Config(args) => config::run(&args),
            #[cfg(feature = "tools")]
            Command::Ports(args) => ports::run(&args),
            #[cfg(feature = "tools")]
            Command::Ping(args) => ping::run(args).await,
            #[cfg(feature = "tools")]
            Command::Services(args) => services::run(args).await,
            #[cfg(feature = "tools")]
            Command::Probe(args) => probe::run(args).await,
            #[cfg(feature = "mesh")]
            Command::Explain(args) => explain::run(&args),
            #[cfg(feature = "completions")]
            Command::Completions(args) => completions::run(&args),
            #[cfg(feature = "man")]
            Command::Man(args) => man::run(&args),
        }
    });
    runtime.block_on(cepa::transports::settled(LAST_BYTES));
    // A read of standard input may still stand in a thread of its own; it must not hold us up.
    if verbose {
        // What sessions report of their end.
        runtime.shutdown_timeout(LAST_EVENTS);
    } else {
        runtime.shutdown_background();
    }
    log::last_words();
    result
}
