//! `cepa exec`: a program of a peer whose owner allows it (`command:`), with arguments of one's own.
//!
//! Everything else is as with `cepa connect` to a command: input, output, errors and the exit status.

use cepa::session::reserved::COMMAND_PREFIX;
use cepa::session::{OpenError, ServiceName};
use cepa::transports::text::clean;
use tokio::io::AsyncWriteExt as _;

use crate::args;
use crate::chosen;
use crate::connect::{self, service};
use crate::connection::Connected;
use crate::exit::{Code, Failure, say};
use crate::id;
use crate::keep::{self, Keep};
use crate::offered;
use crate::programs::{self, NOT_ALLOWED};
use crate::reconnect::Reconnect;
use crate::say::Line;
use crate::service_end::{self, Ending};
use crate::short_code;
use crate::signal::Signals;

pub(crate) async fn run(args: args::Exec) -> Result<(), Failure> {
    let error_status = args.error_status;
    let ended = exec(args).await;
    ended.map_err(|failure| failure.with_error_status(error_status))
}

async fn exec(mut args: args::Exec) -> Result<(), Failure> {
    let request = programs::request(&args.command).map_err(|why| Failure::new(Code::Usage, why))?;
    let identity = id::load(&args.dialling.identity)?;
    short_code::redeem(
        &mut args.address,
        &args.dialling.trust,
        &args.code_relay,
        &identity,
    )
    .await?;
    let args = &args;
    let given = service(&args.address, args.service.as_deref().unwrap_or_default())?;
    let keep = args.dialling.durable.keep(false);
    let mut once = Reconnect::new(&args.address, &args.dialling, &identity, None).keeping(keep);
    let connection = once.first(false).await?;
    if args.dialling.durable.is_asked_for() {
        keep::warn_if_not(&connection.session);
    }
    let how = "choose one with --service NAME";
    let given = chosen::of_kind(&connection, &given, offered::PROGRAMS, how).await?;
    let mut signals = Signals::watch();
    let signal = tokio::select! {
        ended = carried(&connection, args, &given, &request) => {
            return ended.map_err(|failure| failure.running_again(keep == Keep::Not));
        }
        signal = signals.ended_by() => signal,
    };
    Err(connection.ended_by(signal).await)
}

/// Longest name of a program in a line, in bytes.
const SHOWN: usize = 256;

/// Has the program run in the session, and carries it to its end.
async fn carried(
    connection: &Connected,
    args: &args::Exec,
    service: &str,
    request: &[u8],
) -> Result<(), Failure> {
    let name = match service {
        "" => programs::ONLY.to_owned(),
        service => format!("{COMMAND_PREFIX}{service}"),
    };
    let opened = async {
        ServiceName::check(&name).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
        // What is asked for leaves with the opening, so that the program begins one round trip later, and not two.
        let opened = connection.session.open_early(&name).await;
        let mut far = opened.map_err(|e| refused(e, service))?;
        let sent = async {
            far.write_all(request).await?;
            far.flush().await
        };
        let sent: std::io::Result<()> = sent.await;
        far.accepted().await.map_err(|e| refused(e, service))?;
        sent.map_err(|e| Failure::new(Code::Lost, format!("the request was cut off: {e}")))?;
        Ok(far)
    };
    let far = match opened.await {
        Ok(far) => far,
        Err(failure) => {
            connection.close().await;
            return Err(failure);
        }
    };
    if args.dialling.trust.trust.is_some() {
        let peer = connection.session.peer().id();
        say(format_args!("peer {peer} (not verified)"));
    }
    let ending = Ending::default();
    let notify = |line: &str| say(Line::from(line).asked_for());
    let far = service_end::of_program(far, &ending, notify);
    let ended = connect::carried_once(connection, far, ending).await;
    ended.map_err(|failure| {
        if failure.message == NOT_ALLOWED {
            let program = args.command.first().map(String::as_str).unwrap_or_default();
            if let ([_], true) = (args.command.as_slice(), program.contains(' ')) {
                let program = clean(program, SHOWN);
                return Failure::new(
                    Code::Refused,
                    format!(
                        "{program:?} is no program there: no shell reads it, so give each word by itself: cepa exec ADDR -- {program}"
                    ),
                );
            }
            let program = clean(program, SHOWN);
            let list = if service.is_empty() { "NAME" } else { service };
            Failure::new(
                Code::Refused,
                format!(
                    "{program}: {}; it lists programs there with --service {list}=command:/PROGRAM,… (`to` in a node's file)",
                    failure.message
                ),
            )
        } else {
            failure
        }
    })
}

/// Why there is no such service, by the name that was typed. It is asked for in no other form.
fn refused(error: OpenError, service: &str) -> Failure {
    let OpenError::Refused { reason, .. } = error else {
        return error.into();
    };
    let unnamed = service.is_empty();
    let unknown = reason.starts_with(NOT_OPEN);
    let failure = Failure::from(OpenError::Refused {
        service: service.to_owned(),
        reason,
    });
    match (unknown, unnamed) {
        (true, true) => failure.with(
            "its owner allows programs with --service NAME=command:/PROGRAM,…; `cepa services ADDR` lists what you may open there",
        ),
        (true, false) => failure.with("its owner allows programs with --service NAME=command:/PROGRAM,…"),
        (false, _) => failure,
    }
}

/// As a refusal begins where no such service is open to us.
const NOT_OPEN: &str = "no service of this name";
