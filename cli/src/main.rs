//! The `cepa` command-line tool: what a person types, over the `cepa` library.
//!
//! One file a command. A command is an async function that gives `Ok(())` or a [`exit::Failure`];
//! `main` turns it into the exit code. Nothing here that a user of the library would miss.

mod accept;
mod advice;
mod args;
mod ask;
mod called;
mod child;
mod chosen;
mod chunk;
mod columns;
mod command_served;
#[cfg(feature = "completions")]
mod completions;
mod config;
mod connect;
mod connection;
mod console;
mod control;
mod cp;
mod demo;
mod destination;
mod dial_failure;
mod direction;
mod events;
mod exec;
mod exit;
mod explain;
mod files;
mod first_contact;
mod folder;
mod forward;
mod gate;
mod held;
mod id;
mod init;
mod introduce;
mod invite;
mod inviting;
mod keep;
mod kinds;
mod layer_echo;
mod limits;
mod line_holders;
mod log;
mod lookups;
#[cfg(feature = "man")]
mod man;
mod manager;
mod mesh;
mod metrics;
mod names;
mod node;
mod numbers;
mod offered;
mod passphrase;
mod pausable;
mod peer;
mod ping;
mod pipe;
mod piped;
mod ports;
mod probe;
mod programs;
mod progress;
mod qr;
mod reach;
mod reconnect;
mod relay;
mod reload;
mod remote;
mod remote_place;
mod remote_served;
mod say;
mod send;
mod serve;
mod service;
mod service_check;
mod service_end;
mod service_form;
mod service_kept;
mod service_watched;
mod services;
mod settings;
mod share;
mod sharing;
mod short_code;
mod sides;
mod signal;
mod silent_line;
mod socks;
mod socks_served;
mod splice;
mod splice_end;
#[cfg(test)]
mod splice_model;
mod stack;
mod standing;
mod status;
mod status_line;
mod status_served;
mod stderr;
mod toml_file;
mod trace;
mod trust;
mod upstream;
mod values;
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
        None => settings::proxy()?,
    };
    if let Some(proxies) = choice.map_or(Ok(None), words::ProxyChoice::proxies)? {
        trace::use_proxies(proxies);
    }
    Ok(())
}

/// How long whoever reads standard error may take for the last lines.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(1);

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Other, format!("cannot start the runtime: {e}")))?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(args).await,
            Command::Serve(args) => serve::run(args).await,
            Command::Share(args) => share::run(args).await,
            Command::Relay(args) => relay::run(args).await,
            Command::Node(args) => node::run(args).await,
            Command::Reload(args) => reload::run(args).await,
            Command::Introduce(args) => introduce::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Mesh(args) => mesh::run(args).await,
            Command::Connect(args) => connect::run(args).await,
            Command::Console(args) => console::run(args).await,
            Command::Exec(args) => exec::run(args).await,
            Command::Forward(args) => forward::run(args).await,
            Command::Cp(args) => cp::run(args).await,
            Command::Send(args) => send::run(args).await,
            Command::Pipe(args) if args.listen => piped::run(args).await,
            Command::Pipe(args) => pipe::run(args).await,
            Command::Id(args) => id::run(args),
            Command::Invite(args) => invite::invite(args).await,
            Command::Join(args) => invite::join(args).await,
            Command::Peer(args) => peer::run(args),
            Command::Config(args) => config::run(&args),
            Command::Ports(args) => ports::run(&args),
            Command::Ping(args) => ping::run(args).await,
            Command::Services(args) => services::run(args).await,
            Command::Probe(args) => probe::run(args).await,
            Command::Explain(args) => explain::run(&args),
            #[cfg(feature = "completions")]
            Command::Completions(args) => completions::run(&args),
            #[cfg(feature = "man")]
            Command::Man(args) => man::run(&args),
        }
    });
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
