//! `proxy=` in a build without the feature `proxy`: the option is understood, and refused.
use crate::endpoint::Proxy;
use crate::error::TransportErrorKind as Kind;

pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
    pub(crate) advice: &'static str,
}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub(crate) async fn connect<S>(_: &Proxy, _: &mut S, _: &str, _: u16) -> Result<(), Refusal> {
    Err(Refusal {
        kind: Kind::Unsupported,
        reason: "this program was built without proxies".to_owned(),
        advice: "build it with the feature `proxy`",
    })
}
