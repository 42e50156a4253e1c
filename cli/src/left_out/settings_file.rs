//! In place of `settings_file.rs` in a build without the feature `config`: there is no `config.toml`. One that is there all the
//! same is ignored, and that is said once, unless it may name a proxy: then nobody knows whether peers may be dialled directly.

use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use crate::exit::{Code, Failure, say};
use crate::folder;
use crate::settings::Settings;
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
    if fs::read(&path).map_or(true, |text| speaks_of_a_proxy(&text)) {
        let why = format!(
            "{}: it may name a proxy, and this cepa was built without such a file (feature `config`): give --proxy, or move the file away",
            path.display()
        );
        return Err(Failure::new(Code::Local, why));
    }
    read().map(|settings| settings.proxy)
}

/// Whether a line begins so, whatever else there is.
fn speaks_of_a_proxy(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| {
        let line = line.trim_ascii_start();
        line.starts_with(b"proxy") || line.starts_with(b"\"proxy") || line.starts_with(b"'proxy")
    })
}

/// Nobody shares by a file.
pub(crate) fn control() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_matters_only_if_it_may_name_a_proxy() {
        for (text, speaks) in [
            ("", false),
            (
                "relay = \"cepa://x\"\n[targets.board]\naddress = \"tcp:h:1\"\n",
                false,
            ),
            ("# proxy\n", false),
            ("relay = 1\n  proxy = \"env\"\n", true),
            ("\"proxy\" = 1", true),
        ] {
            assert_eq!(speaks_of_a_proxy(text.as_bytes()), speaks, "{text:?}");
        }
    }
}
