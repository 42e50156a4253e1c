//! In place of `files/` in a build without the feature `files`: no service has files.

#[path = "../files/report.rs"]
pub(crate) mod report;

pub(crate) mod line {
    /// Nothing is held for files.
    pub(crate) const MEMORY: usize = 0;
}

pub(crate) mod served {
    use std::path::Path;
    use std::str::FromStr;

    use cepa::mux::Substream;
    use cepa::onion::Onion;
    use cepa::session::Session;

    /// As in `files/served.rs`; nobody has one.
    pub(crate) const ONLY: &str = "cepa.files";

    #[derive(Clone, Debug)]
    pub(crate) enum Shared {}

    impl Shared {
        pub(crate) fn folder(&self) -> &Path {
            match *self {}
        }
    }

    impl FromStr for Shared {
        type Err = String;

        fn from_str(_word: &str) -> Result<Self, String> {
            Err("this cepa was built without files: (feature `files`)".to_owned())
        }
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn serve(
        shared: &Shared,
        _far: Onion<Substream>,
        _session: &Session,
    ) -> Result<(), String> {
        match *shared {}
    }
}
