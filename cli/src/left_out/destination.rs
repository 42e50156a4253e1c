//! In place of `destination.rs` in a build without the feature `forward`: no service connects to what its opener names.

use std::str::FromStr;

/// Nobody has one.
#[derive(Clone, Debug)]
pub(crate) enum Destinations {}

impl FromStr for Destinations {
    type Err = String;

    fn from_str(_word: &str) -> Result<Self, String> {
        Err("this cepa was built without socks: (feature `forward`)".to_owned())
    }
}
