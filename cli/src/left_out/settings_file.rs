//! In place of `settings_file.rs` in a build without the feature `config`: there is no `config.toml`. One that is there all the
//! same is ignored, and that is said once, unless it may name a proxy: then nobody knows whether peers may be dialled directly.

use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use crate::direct::DirectChoice;
use crate::exit::{Code, Failure, say};
use crate::folder;
use crate::settings::{Settings, speaks_of};
use crate::words::ProxyChoice;

/// Where the file would be.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    Ok(folder::path()?.join("config.toml"))
}

/// The file, if there is one.
fn file() -> Option<PathBuf> {
    // Without a home folder there is none.
    path().ok().filter(|path| path.exists())
}

/// Nothing.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn read() -> Result<Settings, Failure> {
    static SAID: Once = Once::new();
    if let Some(path) = file() {
        SAID.call_once(|| {
            say(format_args!(
                "note: {} is ignored: this cepa was built without names in a file (feature `config`)",
                path.display()
            ));
        });
    }
    Ok(Settings::default())
}

/// None, unless the file may name one.
pub(crate) fn proxy() -> Result<Option<ProxyChoice>, Failure> {
    let Some(path) = file() else {
        return Ok(None);
    };
    if fs::read(&path).map_or(true, |text| speaks_of("proxy", &text)) {
        let why = format!(
            "{}: it may name a proxy, and this cepa was built without such a file (feature `config`): give --proxy, or move the file away",
            path.display()
        );
        return Err(Failure::new(Code::Local, why));
    }
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
