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
    or_end(connection, named).await
}

/// The same among the services of one kind; `how` says how to name one of several.
pub(crate) async fn of_kind(
    connection: &Connected,
    given: &str,
    kind: &str,
    how: &str,
) -> Result<String, Failure> {
    let named = match connection.shared() {
        Some(shared) if given.is_empty() && shared.len() > 1 => {
            // Of what the ticket is for, the peer tells the kinds.
            match offered::only(&connection.session, Some(kind)).await {
                Only::One(name) if shared.contains(&name) => Ok(name),
                _ => of_ticket(shared, given),
            }
        }
        Some(shared) => of_ticket(shared, given),
        None if given.is_empty() => match offered::only(&connection.session, Some(kind)).await {
            Only::One(name) => Ok(name),
            Only::Unknown => Ok(String::new()),
            Only::Several(names) => {
                let (peer, names) = (offered::name(&connection.session), names.join(", "));
                let why = format!("{peer} has several services of {kind}: {names}; {how}");
                Err(Failure::new(Code::Refused, why))
            }
        },
        None => Ok(given.to_owned()),
    };
    or_end(connection, named).await
}

async fn or_end(connection: &Connected, named: Result<String, Failure>) -> Result<String, Failure> {
    if named.is_err() {
        connection.close().await;
    }
    named
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
