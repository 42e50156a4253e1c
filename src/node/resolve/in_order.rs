//! Several resolvers as one.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::resolver::{ResolveError, Resolver};
use crate::identity::PeerId;
use crate::node::addr::Hint;

/// Several resolvers: the first one that knows the peer answers, and those behind it are not asked.
///
/// One that fails is passed over; its error is told only where no other one knows the peer.
#[derive(Clone, Debug, Default)]
pub struct InOrder {
    all: Vec<Arc<dyn Resolver>>,
}

impl InOrder {
    /// In this order.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = Arc<dyn Resolver>>) -> Self {
        Self {
            all: all.into_iter().collect(),
        }
    }
}

impl Resolver for InOrder {
    fn resolve(&self, peer: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
        Box::pin(async move {
            let mut failed = None;
            for one in &self.all {
                match one.resolve(peer).await {
                    Ok(hints) if !hints.is_empty() => return Ok(hints),
                    Ok(_) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(Vec::new()), Err)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const PEER: PeerId = PeerId::from_bytes([1; 32]);

    /// Answers always the same, and counts how often it was asked.
    #[derive(Debug)]
    struct Says(Option<&'static [&'static str]>, AtomicUsize);

    impl Resolver for Says {
        fn resolve(&self, _: PeerId) -> BoxFuture<'_, Result<Vec<Hint>, ResolveError>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let hints = |all: &[&str]| all.iter().map(|hint| hint.parse().unwrap()).collect();
            let answer = self.0.map(hints);
            Box::pin(async move { answer.ok_or_else(|| ResolveError::Other("no answer".into())) })
        }
    }

    fn says(what: Option<&'static [&'static str]>) -> Arc<Says> {
        Arc::new(Says(what, AtomicUsize::new(0)))
    }

    async fn ask(all: &[&Arc<Says>]) -> Result<Vec<String>, String> {
        let all = all.iter().map(|one| Arc::clone(one) as Arc<dyn Resolver>);
        let found = InOrder::new(all).resolve(PEER).await;
        let found = found.map_err(|e| e.to_string())?;
        Ok(found.iter().map(Hint::to_string).collect())
    }

    #[tokio::test]
    async fn the_first_that_knows_answers_alone() {
        let (nothing, broken) = (says(Some(&[])), says(None));
        let (one, two) = (
            says(Some(&["tcp:one:1", "tcp:one:2"])),
            says(Some(&["tcp:two:1"])),
        );
        let found = ask(&[&nothing, &broken, &one, &two]).await;
        assert_eq!(found.unwrap(), ["tcp:one:1", "tcp:one:2"]);
        let asked = [&nothing, &broken, &one, &two].map(|one| one.1.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 1, 1, 0]);
    }

    #[tokio::test]
    async fn what_failed_is_reported_where_nobody_knows() {
        let (nothing, broken) = (says(Some(&[])), says(None));
        assert_eq!(ask(&[&broken, &nothing]).await.unwrap_err(), "no answer");
        assert_eq!(ask(&[&nothing]).await.unwrap(), [""; 0]);
        assert_eq!(ask(&[]).await.unwrap(), [""; 0]);
    }
}
