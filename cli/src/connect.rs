//! `cepa connect`: standard input and output joined to a service of a peer.

use std::io::IsTerminal as _;

use cepa::transports::{self, Endpoint};

use crate::args;
use crate::exit::{Code, Failure};
use crate::id;
use crate::join::{Ended, Join};
use crate::link::Link;

pub(crate) async fn run(args: args::Connect) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let link = Link::dial(&args.address, &args.trust, &identity).await?;
    let result = joined(&link, &args.service).await;
    match result {
        // What was written must all leave, however slowly the service takes it.
        Ok(()) => link.finish().await,
        Err(_) => link.close().await,
    }
    result
}

async fn joined(link: &Link, service: &str) -> Result<(), Failure> {
    let mut far = link.session.open(service).await?;
    let stdio: Endpoint = "stdio:"
        .parse()
        .map_err(|e| Failure::new(Code::Other, format!("{e}")))?;
    // A person at a terminal has nothing more to say once the service has ended; a pipe may. Asked
    // now, for `stdio:` takes the descriptor away.
    let at_terminal = std::io::stdin().is_terminal();
    let mut near = transports::dial(&stdio).await?;
    let join = Join::new(&mut near, &mut far)
        .end_with_near()
        .end_with_far(at_terminal);
    match join.run().await {
        // The reader of standard output has what it wanted. So has a service that has ended its
        // output and left the rest of its input unread.
        Ended::Both { .. } => Ok(()),
        Ended::NearLeft(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Ended::NearLeft(e) => Err(Failure::new(
            Code::Other,
            format!("cannot write to standard output: {e}"),
        )),
        Ended::Near(e) => Err(Failure::new(
            Code::Other,
            format!("cannot read standard input: {e}"),
        )),
        Ended::Far(e) => Err(match link.lost().await {
            Some(lost) => lost,
            None => Failure::new(
                Code::Other,
                format!("the service ended abnormally ({e}): its output is incomplete"),
            ),
        }),
    }
}
