//! The passphrase of a private key: from the file that `CEPA_PASSPHRASE_FILE` names, for programs, or
//! from a person at a terminal. Never from an option or the value of a variable: those are shown in
//! lists of processes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::ask;
use crate::exit::{Code, Failure};

/// The variable that names the file.
const VARIABLE: &str = "CEPA_PASSPHRASE_FILE";
/// Nobody types more.
const MAX: u64 = 4096;

/// The passphrase of a key that is there.
pub(crate) fn of(path: &Path) -> Result<Zeroizing<String>, Failure> {
    match from_file()? {
        Some(passphrase) => Ok(passphrase),
        None => typed(&format!("Passphrase for {}: ", path.display()), path),
    }
}

/// A passphrase for a key that is to be made, typed twice.
pub(crate) fn new(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let given = from_file()?;
    let passphrase = if let Some(passphrase) = given {
        passphrase
    } else {
        let first = typed(&format!("Passphrase for {}: ", path.display()), path)?;
        if first != typed("Repeat it: ", path)? {
            return Err(Failure::new(
                Code::Usage,
                "the two passphrases differ, so nothing was created; try again",
            ));
        }
        first
    };
    if passphrase.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "an empty passphrase protects nothing; choose one, or leave out --passphrase",
        ));
    }
    Ok(passphrase)
}

/// The first line of the file.
fn from_file() -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let failed = |problem: String| {
        let path = Path::new(&path).display();
        Failure::new(Code::Local, format!("{VARIABLE}: {path}: {problem}"))
    };
    let file = File::open(&path).map_err(|e| failed(e.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let found = file.metadata().map_err(|e| failed(e.to_string()))?;
        let (mode, plain) = (found.mode() & 0o7777, found.is_file());
        let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
        if plain && owner != us && owner != 0 {
            return Err(failed(format!(
                "belongs to user {owner}, not to you (user {us}) or root; use a file of your own"
            )));
        }
        if plain && mode & 0o077 != 0 {
            return Err(failed(format!(
                "other users may read or change it (mode {mode:04o}); run `chmod 600` on it"
            )));
        }
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX).unwrap_or(0)));
    file.take(MAX)
        .read_to_string(&mut text)
        .map_err(|e| failed(e.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    Ok(Some(Zeroizing::new(line.to_owned())))
}

fn typed(prompt: &str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    if ask::terminal().is_none() {
        return Err(Failure::new(
            Code::Local,
            format!(
                "{}: the key needs a passphrase, and there is no terminal to ask for it; set {VARIABLE} to a file that contains it",
                path.display()
            ),
        ));
    }
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|e| Failure::new(Code::Other, format!("cannot ask for the passphrase: {e}")))
}
