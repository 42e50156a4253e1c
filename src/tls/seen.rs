//! What the peers of a configuration have shown, in memory once where one peer has several connections, one after the other or at once: rustls
//! has a copy of its own for each, and lends it to nobody.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls_pki_types::CertificateDer;

/// The certificates that the last peer has shown, while a connection has them.
#[derive(Default)]
pub(super) struct Seen {
    last: Mutex<Option<Weak<[CertificateDer<'static>]>>>,
}

impl Seen {
    /// What a peer has shown, in memory once.
    pub(super) fn keep(&self, shown: &[CertificateDer<'static>]) -> Arc<[CertificateDer<'static>]> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().and_then(Weak::upgrade);
        if let Some(same) = known.filter(|known| **known == *shown) {
            return same;
        }
        let new = Arc::from(shown);
        *last = Some(Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_in_memory_once_and_no_longer_than_a_connection_has_them() {
        let seen = Seen::default();
        let [one, other] = [1, 2].map(|byte| [CertificateDer::from(vec![byte; 3])]);
        let first = seen.keep(&one);
        assert!(Arc::ptr_eq(&first, &seen.keep(&one)));
        let kept = Arc::downgrade(&first);
        assert_eq!(*seen.keep(&other), other);
        assert_eq!(*seen.keep(&[]), []);
        assert_eq!(*seen.keep(&one), one);
        drop(first);
        assert!(kept.upgrade().is_none());
        assert_eq!(*seen.keep(&one), one);
    }
}
