//! In place of `settings_file.rs` in a build without the feature `config`: there is no `config.toml`. One that is there all the
//! same says what its owner wants, so that it is not passed over where that would count.

use std::path::PathBuf;

use crate::direct::DirectChoice;
use crate::exit::{Code, Failure};
use crate::folder;
use crate::settings::Settings;
use crate::words::ProxyChoice;

/// Where the file would be.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    Ok(folder::path()?.join("config.toml"))
}

/// Nothing, unless there is a file.
pub(crate) fn read() -> Result<Settings, Failure> {
    // Without a home folder there is none.
    let Ok(path) = path() else {
        return Ok(Settings::default());
    };
    if !path.exists() {
        return Ok(Settings::default());
    }
    let why = format!(
        "{}: this cepa was built without names in a file (feature `config`); give the address, or move the file away",
        path.display()
    );
    Err(Failure::new(Code::Local, why))
}

/// Peers must not be dialled directly where the file may speak of a proxy.
pub(crate) fn proxy() -> Result<Option<ProxyChoice>, Failure> {
    read().map(|settings| settings.proxy)
}

/// Nothing is said of direct paths, which such a build does not look for.
#[allow(clippy::unnecessary_wraps)] // as the other one
pub(crate) fn direct() -> Result<Option<DirectChoice>, Failure> {
    Ok(None)
}

/// Nobody shares by a file.
pub(crate) fn control() -> bool {
    false
}
