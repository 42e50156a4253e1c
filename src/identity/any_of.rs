//! Several policies as one: pinned keys, or certificates of an authority.

use std::sync::Arc;

use super::trust::{Presented, Refusal, TrustPolicy};

/// Trusts whom one of several policies trusts, asked in their order.
///
/// A policy that could not decide ([`Refusal::PolicyFailed`]), or that found a changed key
/// ([`Refusal::Changed`]), has the last word: what comes after it is not asked. An empty list trusts
/// nobody.
#[derive(Clone, Debug, Default)]
pub struct AnyOf {
    policies: Vec<Arc<dyn TrustPolicy>>,
}

impl AnyOf {
    /// The policies, the one to be asked first in front.
    pub fn new(policies: impl IntoIterator<Item = Arc<dyn TrustPolicy>>) -> Self {
        Self {
            policies: policies.into_iter().collect(),
        }
    }

    /// The policy that trusts the peer, or why none does: the first reason that says more than that
    /// nobody knows it.
    fn who(&self, peer: &Presented<'_>) -> Result<&dyn TrustPolicy, Refusal> {
        let mut reason = None;
        for policy in &self.policies {
            match policy.decide(peer) {
                Ok(()) => return Ok(&**policy),
                Err(last @ (Refusal::PolicyFailed { .. } | Refusal::Changed { .. })) => {
                    return Err(last);
                }
                Err(Refusal::Unknown { .. }) => {}
                Err(other) => {
                    reason.get_or_insert(other);
                }
            }
        }
        Err(reason.unwrap_or(Refusal::Unknown { presented: peer.id }))
    }
}

impl TrustPolicy for AnyOf {
    fn decide(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.who(peer).map(|_| ())
    }

    fn overlooks_dates(&self, peer: &Presented<'_>) -> bool {
        self.who(peer)
            .is_ok_and(|policy| policy.overlooks_dates(peer))
    }

    fn may_block(&self) -> bool {
        self.policies.iter().any(|policy| policy.may_block())
    }

    /// Whichever of those that trust the peer lists it: one in front that takes anybody does not hide that.
    fn names(&self, peer: &Presented<'_>) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|policy| policy.decide(peer).is_ok() && policy.names(peer))
    }

    fn proven(&self, peer: &Presented<'_>) -> Result<(), Refusal> {
        self.who(peer)?.proven(peer)
    }
}
