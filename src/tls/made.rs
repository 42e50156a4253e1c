//! Configurations that were made and are in use, so that the next connection gets one of them instead of another one that is alike.
//!
//! What a stack is to be is said anew for each connection, since its fields may be changed meanwhile. Most of the time nobody has, and all
//! its connections can share what rustls needs for a layer. Nothing is kept here that no connection uses: a key that was replaced
//! must not stay in memory.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::builder::TlsConfigBuilder;
use super::config::{Inner, Settings, TlsConfig};
use super::config_error::TlsConfigError;

/// How many are remembered: a client has one for each peer that it asks for by name, and the oldest are forgotten.
const MOST: usize = 16;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Made {
    known: Mutex<Vec<Weak<Inner>>>,
}

impl Made {
    /// What the builder says: one that is in use, or a new one.
    pub(crate) fn build(&self, wanted: TlsConfigBuilder) -> Result<TlsConfig, TlsConfigError> {
        let wanted = wanted.into_settings();
        // What is dropped here may be the last of its kind, and a trust policy's own end is no business for under a lock.
        let in_use: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let alike = in_use.into_iter().find(|it| it.settings.is_like(&wanted));
        if let Some(inner) = alike {
            return Ok(TlsConfig { inner });
        }
        let made = wanted.build()?;
        let mut known = self.lock();
        known.retain(|one| one.strong_count() > 0);
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push(Arc::downgrade(&made.inner));
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Inner>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made")
            .field("known", &self.lock().len())
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Whether what the two make is alike. What can't be looked into is alike where it is the same.
    fn is_like(&self, other: &Self) -> bool {
        // Each field by name, so that a new one is missed here.
        let Self {
            identity,
            more_identities,
            key_form,
            optional_client,
            anonymous,
            trust,
            base,
            versions,
            suites,
            groups,
            alpn,
            alpn_required,
            server_name,
            asked,
            only_asked,
            max_fragment,
            clock,
        } = self;
        identity.is_same(&other.identity)
            && more_identities.len() == other.more_identities.len()
            && more_identities
                .iter()
                .zip(&other.more_identities)
                .all(|(one, other)| one.is_same(other))
            && *key_form == other.key_form
            && *optional_client == other.optional_client
            && *anonymous == other.anonymous
            && Arc::ptr_eq(trust, &other.trust)
            && Arc::ptr_eq(base, &other.base)
            && *versions == other.versions
            && *suites == other.suites
            && *groups == other.groups
            && *alpn == other.alpn
            && *alpn_required == other.alpn_required
            && *server_name == other.server_name
            && *asked == other.asked
            && *only_asked == other.only_asked
            && *max_fragment == other.max_fragment
            && Arc::ptr_eq(clock, &other.clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{AcceptAny, Identity, KeyKind, TrustPolicy};
    use crate::tls::{KeyForm, Version};

    fn is_shared(one: &TlsConfig, other: &TlsConfig) -> bool {
        Arc::ptr_eq(&one.inner, &other.inner)
    }

    #[test]
    fn what_is_alike_is_shared_and_what_is_not_in_use_is_gone() {
        let made = Made::default();
        let identity = Identity::generate(KeyKind::Ed25519).unwrap();
        let trust: Arc<dyn TrustPolicy> = Arc::new(AcceptAny);
        let base = || TlsConfig::builder(&identity, Arc::clone(&trust));
        let one = made.build(base()).unwrap();
        assert!(is_shared(&one, &made.build(base()).unwrap()));
        let inner = Arc::downgrade(&one.inner);
        drop(one);
        assert!(inner.upgrade().is_none(), "a key must not outlive its use");
    }

    #[test]
    fn whatever_differs_gets_another_one() {
        let made = Made::default();
        let [identity, other] = [(); 2].map(|()| Identity::generate(KeyKind::P256).unwrap());
        let trust: Arc<dyn TrustPolicy> = Arc::new(AcceptAny);
        let base = || TlsConfig::builder(&identity, Arc::clone(&trust));
        let one = made.build(base()).unwrap();
        let provider = Arc::new(rustls::crypto::CryptoProvider::clone(
            &crate::identity::default_provider(),
        ));
        let all = [
            TlsConfig::builder(&other, Arc::clone(&trust)),
            TlsConfig::builder(&identity, Arc::new(AcceptAny)),
            base().more_identities(std::slice::from_ref(&other)),
            base().key_form(KeyForm::RawPublicKey),
            base().optional_client_certificate(),
            base().without_client_certificate(),
            base().provider(provider),
            base().versions(&[Version::Tls12, Version::Tls13]),
            base().suites(&[0x1301]),
            base().groups(&[0x1d]),
            base().alpn(&["a"]),
            base().optional_alpn(&["a"]),
            base().server_name("a.example"),
            base().ask_for(other.peer_id()),
            base().server_peer(other.peer_id()),
            base().max_fragment(100),
            base().clock(Arc::new(rustls::time_provider::DefaultTimeProvider)),
        ];
        let mut kept = vec![one];
        for builder in all {
            let new = made.build(builder.clone()).unwrap();
            assert!(kept.iter().all(|known| !is_shared(known, &new)), "{new:?}");
            assert!(is_shared(&new, &made.build(builder).unwrap()));
            kept.push(new);
        }
        assert!(made.lock().len() <= MOST);
    }
}
