//! In place of `short_code.rs` in a build without the feature `mesh`: nothing that is dialled is a code.

use cepa::identity::Identity;

use crate::args::{CodeRelay, DialTarget, Trust};
use crate::exit::Failure;

#[allow(clippy::unused_async)]
pub(crate) async fn redeem(
    _target: &mut DialTarget,
    _trust: &Trust,
    _relay: &CodeRelay,
    _identity: &Identity,
) -> Result<(), Failure> {
    Ok(())
}
