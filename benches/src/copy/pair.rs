//! A server with a folder as its service `up`, and a client that knows it as `@board`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cepa::transports::testkit::fill;

use crate::Outcome;
use crate::tool::{Process, command, identity};

/// The file that is copied.
pub(super) const FILE: &str = "data";

pub(super) struct Pair {
    cepa: PathBuf,
    folder: tempfile::TempDir,
    client: String,
    client_id: String,
    server: Option<Process>,
}

impl Pair {
    /// With a file of so many bytes, and without a server.
    pub(super) fn new(cepa: &Path, bytes: u64) -> Outcome<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)?
        } else {
            tempfile::tempdir()?
        };
        let at = folder.path();
        for name in ["client", "server", "there"] {
            fs::DirBuilder::new().mode(0o700).create(at.join(name))?;
        }
        let (client, client_id) = identity(cepa, &at.join("client"), "key.pem")?;
        let mut data = vec![0; usize::try_from(bytes)?];
        fill(1, 0, &mut data);
        fs::write(at.join(FILE), data)?;
        Ok(Self {
            cepa: cepa.to_owned(),
            folder,
            client,
            client_id,
            server: None,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the copy is to be.
    pub(super) fn copy(&self) -> PathBuf {
        self.path("there").join(FILE)
    }

    /// Serves at an address, with these services more; the client dials `dialled`, or what the server says where that is empty.
    pub(super) fn serve(&mut self, at: &str, dialled: &str, more: &[String]) -> Outcome<()> {
        let home = self.path("server");
        let (key, id) = identity(&self.cepa, &home, "key.pem")?;
        let mut words: Vec<String> = ["serve", at, "--identity", &key, "--allow", &self.client_id]
            .map(str::to_owned)
            .into();
        let up = format!("up=files:{}", self.path("there").display());
        for service in [&[up], more].concat() {
            words.extend(["--service".to_owned(), service]);
        }
        let mut server = Process::start(command(&self.cepa, &home, &words))?;
        let listens = server.listens()?;
        let address = if dialled.is_empty() {
            &listens
        } else {
            dialled
        };
        let text = format!(
            "[targets.board]\naddress = {address:?}\nexpect = {id:?}\nidentity = {:?}\n",
            self.client
        );
        let config = self.path("client").join("config.toml");
        let mut file = fs::OpenOptions::new();
        let file = file.create(true).truncate(true).write(true).mode(0o600);
        std::io::Write::write_all(&mut file.open(config)?, text.as_bytes())?;
        self.server = Some(server);
        Ok(())
    }

    /// A command of the client.
    pub(super) fn client(&self, words: &[&str]) -> Command {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        command(&self.cepa, &self.path("client"), &words)
    }

    /// A copy that has begun; what it says goes into a file.
    pub(super) fn begin(&self) -> Outcome<Child> {
        let said = fs::File::create(self.path("said"))?;
        let file = self.path(FILE).display().to_string();
        let mut command = self.client(&["cp", &file, "@board:up/"]);
        Ok(command.stdout(Stdio::null()).stderr(said).spawn()?)
    }

    /// Waits for the end of a copy, and looks whether all is there.
    pub(super) fn finish(&self, mut child: Child) -> Outcome<()> {
        if !child.wait()?.success() {
            return Err(fs::read_to_string(self.path("said"))?.into());
        }
        self.is_whole()
    }

    /// Whether the copy is like the file; takes it away.
    pub(super) fn is_whole(&self) -> Outcome<()> {
        let whole = fs::read(self.copy())? == fs::read(self.path(FILE))?;
        fs::remove_file(self.copy())?;
        if whole {
            Ok(())
        } else {
            Err("the copy differs from the file".into())
        }
    }
}
