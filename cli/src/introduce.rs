//! `cepa introduce`: signs a reference to a service, passes one on, or takes one back.

use std::time::Duration;

use cepa::identity::{Identity, UnixTime};
use cepa::protocols::introduction::{Flaw, IntroducedError, Introduction, Introductions, Terms};

use crate::args::{self, Expected};
use crate::by_mesh;
use crate::exit::{self, Code, Failure, say};
use crate::mesh_node::Mesh;
use crate::values::Reference;
use crate::{explain, folder, id, names, reach, stack};

pub(crate) async fn run(args: args::Introduce) -> Result<(), Failure> {
    let identity = id::load(&args.identity)?;
    let Mesh {
        node,
        introductions,
        ..
    } = Mesh::new(reach::dialling(&identity, false))?;
    if let Some(introduction) = &args.revoke {
        let result = introductions.revoke(introduction).await;
        node.shutdown(Duration::ZERO).await;
        result.map_err(|e| not_revoked(&e, introduction, &identity))?;
        match introduction.address() {
            Some(to) => say(format_args!(
                "revoked the introduction to the service {} of {}",
                to.service(),
                to.peer()
            )),
            None => say("revoked the introduction"),
        }
        return Ok(());
    }
    let (Some(recipient), Some(to)) = (&args.recipient, &args.to) else {
        return Err(Failure::new(
            Code::Usage,
            "give the peer to introduce and the peer that has the service",
        ));
    };
    let introduction = introduce(&introductions, &args, recipient, to)?;
    say(terms_of(&introduction));
    exit::print(&format!("{introduction}\n"))
}

/// What was signed, in a line: the code tells a person nothing.
fn terms_of(it: &Introduction) -> String {
    let recipient = it.recipient().map_or_else(
        || "whoever uses it first".to_owned(),
        |id| match folder::known_as(id).first() {
            Some(peer) => peer.name().to_owned(),
            None => format!("{}…", id.short()),
        },
    );
    let service = it.address().map_or("", |address| address.service());
    format!(
        "for {recipient}, to {service}, {} within {}; {}",
        explain::uses(it.uses()),
        explain::left(it.expires()),
        explain::further(it.further())
    )
}

/// Why an introduction is not taken back.
fn not_revoked(e: &IntroducedError, it: &Introduction, identity: &Identity) -> Failure {
    let (IntroducedError::Flaw(Flaw::NotYours)
    | IntroducedError::Refused {
        flaw: Flaw::NotYours,
        ..
    }) = e
    else {
        return by_mesh::introduced(e, identity);
    };
    let issuers: Vec<String> = it.issuers().iter().map(ToString::to_string).collect();
    let why = format!(
        "only its issuer or the owner of its service can revoke an introduction: {}; this machine is {}",
        issuers.join(" or "),
        identity.peer_id()
    );
    Failure::new(Code::Refused, why)
}

fn introduce(
    node: &Introductions,
    args: &args::Introduce,
    recipient: &Expected,
    to: &Reference,
) -> Result<Introduction, Failure> {
    let life = Duration::from_secs(60 * u64::from(args.minutes));
    let now = Duration::from_secs(folder::now().as_secs());
    let mut terms = Terms::until(UnixTime::since_unix_epoch(now + life))
        .uses((args.uses > 0).then_some(args.uses))
        .further(args.further);
    terms.recipient = match recipient {
        Expected::Peer(id) => Some(*id),
        Expected::Named(name) if name.is_empty() => None,
        Expected::Named(name) => Some(names::id_of(name)?),
    };
    let flawed = |e: Flaw| Failure::of(Code::Usage, &e);
    match to {
        Reference::Address(address) => {
            let named = address.service();
            let service = args.service.as_deref().unwrap_or(named);
            if !named.is_empty() && service != named {
                let why =
                    format!("the address already names the service {named}; leave out {service}");
                return Err(Failure::new(Code::Usage, why));
            }
            if service.is_empty() {
                let why = "an introduction is for one service; name it: cepa introduce A B SERVICE";
                return Err(Failure::new(Code::Usage, why));
            }
            let address = address.clone().with_service(service)?;
            stack::warn_of_dead_hints(address.hints());
            if address.hints().is_empty() {
                say("the address has no hints: the recipient must already know where the peer is");
            }
            node.introduce(&address, terms).map_err(flawed)
        }
        Reference::Introduction(it) => {
            let named = it.address().map_or("", |address| address.service());
            if args
                .service
                .as_deref()
                .is_some_and(|service| service != named)
            {
                let why = format!(
                    "the introduction is for the service {named}, and can only be passed on for that one"
                );
                return Err(Failure::new(Code::Usage, why));
            }
            node.pass_on(it, terms).map_err(flawed)
        }
    }
}
