//! The service that somebody means: by the name that was typed, by a ticket, or the only one that there is.
//!
//! A name that was left out is found before anything is opened, since only by its name a service is had in every form: with its
//! standard error and its exit status, or on a console.

use crate::connection::Connected;
use crate::exit::{Code, Failure};
use crate::offered::{self, Only};

/// The service that was meant by this name. Where a ticket has said which there are, one of those; otherwise an empty name stands for the
/// only one that the peer offers, and stays empty where it does not say. Ends the session if it fails.
pub(crate) async fn service(connection: &Connected, given: &str) -> Result<String, Failure> {
    let named = match connection.shared() {
        Some(shared) => of_ticket(shared, given),
        None if given.is_empty() => match offered::only(&connection.session, None).await {
            Only::One(name) => Ok(name),
            Only::Several(_) | Only::Unknown => Ok(String::new()),
        },
        None => Ok(given.to_owned()),
    };
    if named.is_err() {
        connection.close().await;
    }
    named
}

/// The same among the services of one kind; `how` says how to name one of several. The session goes on if it fails.
pub(crate) async fn of_kind(
    connection: &Connected,
    given: &str,
    kind: &str,
    how: &str,
) -> Result<String, Failure> {
    if let Some(shared) = connection.shared() {
        return of_ticket(shared, given);
    }
    if !given.is_empty() {
        return Ok(given.to_owned());
    }
    match offered::only(&connection.session, Some(kind)).await {
        Only::One(name) => Ok(name),
        Only::Unknown => Ok(String::new()),
        Only::Several(names) => {
            let peer = offered::name(&connection.session);
            let why = format!(
                "{peer} has several services of {kind}: {}; {how}",
                names.join(", ")
            );
            Err(Failure::new(Code::Refused, why))
        }
    }
}

fn of_ticket(shared: &[String], given: &str) -> Result<String, Failure> {
    match shared {
        _ if shared.iter().any(|name| name == given) => Ok(given.to_owned()),
        [only] if given.is_empty() => Ok(only.clone()),
        _ if given.is_empty() => Err(Failure::new(
            Code::Usage,
            format!(
                "the ticket is for several services; name one of them: {}",
                shared.join(", ")
            ),
        )),
        _ => Err(Failure::new(
            Code::Refused,
            format!(
                "the ticket is not for {given}, but for: {}",
                shared.join(", ")
            ),
        )),
    }
}
