//! Machines for the walks: each has a network, a hostname and a file system of its own, so that a document's commands run as they
//! stand there, with its ports, its paths and its names.
//!
//! ```text
//!   home 10.9.0.2    laptop 10.9.0.3    …      namespaces of network, mounts and hostname; an overlay on / that is gone
//!      \______________/____________/           when the machine is; devices, /dev/pts and processes are the real ones
//!        a bridge, in a namespace too
//! ```
//!
//! A machine is there as long as the process that holds it, which ends with the test however that ends: its standard input is
//! a pipe from here. This takes root, iproute2 and util-linux.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use cepa::transports::testkit::LineSettings;

use crate::common::desk::Desk;
use crate::common::line::join;
use crate::common::{PATIENCE, Place, bin, finish, text, unstamped};

/// What a machine needs before it is one: its own root folder, with the real one below it.
const SET_UP: &str = r#"
set -e
dir=$1 name=$2
hostname "$name"
ip link set lo up
mount -t tmpfs machine "$dir"
cd "$dir"
mkdir upper work root
mount -t overlay machine -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" root
cd root
mount --rbind /proc proc
mount --rbind /sys sys
mount -t tmpfs machine dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts
mount --bind /dev/pts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs machine run
mkdir -p "home/$name" usr/local/bin
rm -f usr/bin/cepa usr/local/bin/cepa
touch usr/bin/cepa
mount --bind "$3" usr/bin/cepa
printf '%s\n' "$name" > etc/hostname
printf '127.0.0.1 localhost\n%b' "$4" > etc/hosts
# Up when its root is the new one.
exec chroot . sh -c 'echo up && exec cat'
"#;

/// Answers HTTP at a port or a Unix socket, with the same text always.
const WEB: &str = r#"
import http.server, os, socketserver, sys
place, said = sys.argv[1], (sys.argv[2] + "\n").encode()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *args):
        pass
if place.startswith("/"):
    os.makedirs(os.path.dirname(place), exist_ok=True)
    server = socketserver.UnixStreamServer(place, Answer)
else:
    host, port = place.rsplit(":", 1)
    server = http.server.HTTPServer((host, int(port)), Answer)
print("up", flush=True)
server.serve_forever()
"#;

/// The cable that all machines are plugged into.
struct Bridge(Child);

/// Some machines on one network, which know each other by name. They are gone when it is dropped.
pub(crate) struct Machines {
    all: Vec<Machine>,
    _bridge: Bridge,
    _place: Place,
}

pub(crate) struct Machine {
    pub(crate) name: String,
    holder: Child,
    place: Place,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one that holds namespaces, and waits until it says that they are there.
fn hold(command: &mut Command) -> Result<Child, String> {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("{error}; install util-linux"))?;
    let mut line = String::new();
    let _ = BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line);
    if line == "up\n" {
        return Ok(child);
    }
    let mut said = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut said);
    let _ = child.wait();
    Err(said.trim().to_owned())
}

fn quietly(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", text(&output.stderr)))
}

impl Machines {
    /// These, each with the names that it has beside its own: `relay relay.example`. None where this machine can't have such, said
    /// loudly; with CI=true and as root it must.
    pub(crate) fn new(names: &[&str]) -> Option<Self> {
        match Self::try_new(names) {
            Ok(machines) => Some(machines),
            Err(why) => {
                let required = std::env::var_os("CEPA_REQUIRE_INTEROP").is_some()
                    && rustix::process::geteuid().is_root();
                assert!(!required, "machines of namespaces are required here: {why}");
                let name = thread::current().name().unwrap_or("test").to_owned();
                // Not eprintln: the test runner swallows that of a test that passes.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: {name}: it takes root, iproute2, util-linux, python3, curl and openssl: {why}"
                );
                None
            }
        }
    }

    fn try_new(names: &[&str]) -> Result<Self, String> {
        for program in ["ip", "nsenter", "python3", "curl", "openssl"] {
            let there = Command::new(program).arg("--help").output();
            there.map_err(|error| format!("{program}: {error}"))?;
        }
        let place = Place::new();
        let add = "ip link add lan type bridge && ip link set lan up && echo up && exec cat";
        let bridge = Bridge(hold(
            Command::new("unshare").args(["--net", "sh", "-c", add]),
        )?);
        let hosts = names.iter().enumerate();
        let hosts = hosts.map(|(at, names)| format!("10.9.0.{} {names}\\n", at + 2));
        let hosts: String = hosts.collect();
        let mut all = Vec::new();
        for (at, names) in names.iter().enumerate() {
            let name = names.split(' ').next().unwrap();
            let dir = place.path(name);
            fs::create_dir(&dir).unwrap();
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--uts", "sh", "-c", SET_UP, "sh"]);
            let holder = hold(command.arg(&dir).arg(name).arg(bin()).arg(&hosts))?;
            let machine = Machine {
                name: name.to_owned(),
                holder,
                place: Place::new(),
            };
            let cable = format!("cable{at}");
            let mut command = within(bridge.0.id(), &["--net"]);
            command.args(["ip", "link", "add", &cable, "type", "veth", "peer"]);
            // By its process: the namespace has no name.
            let pid = machine.holder.id().to_string();
            quietly(command.args(["name", "lan", "netns", &pid]))?;
            let mut command = within(bridge.0.id(), &["--net"]);
            quietly(command.args(["ip", "link", "set", &cable, "master", "lan", "up"]))?;
            machine.run(&format!(
                "ip addr add 10.9.0.{}/24 dev lan && ip link set lan up",
                at + 2
            ));
            all.push(machine);
        }
        Ok(Self {
            all,
            _bridge: bridge,
            _place: place,
        })
    }

    /// In the order in which they were named.
    pub(crate) fn each<const N: usize>(&self) -> [&Machine; N] {
        let all: Vec<&Machine> = self.all.iter().collect();
        all.try_into().ok().unwrap()
    }
}

/// A command in namespaces of a process.
fn within(pid: u32, namespaces: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg("--target")
        .arg(pid.to_string())
        .args(namespaces);
    command
}

impl Machine {
    /// The words in front of a command that is to run on this machine, as a user who has just logged in.
    fn enter(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let home = format!("/home/{}", self.name);
        let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
        let words = [
            "nsenter",
            "--target",
            &pid,
            "--net",
            "--mount",
            "--uts",
            "--root",
            "env",
            "-i",
            "-C",
            &home,
            path,
            &format!("HOME={home}"),
            "USER=root",
            "LOGNAME=root",
            "LANG=C.UTF-8",
            "TERM=dumb",
            "SHELL=/bin/sh",
        ];
        words.map(str::to_owned).to_vec()
    }

    fn shell(&self, command: &str) -> Command {
        let enter = self.enter();
        let mut shell = Command::new(&enter[0]);
        shell.args(&enter[1..]).args(["sh", "-c", command]);
        // A group of its own, so that all of it can be ended.
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        shell
    }

    /// Runs it to its end, which must be a success; all that it printed, standard output first.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let output = finish(self.shell(command).spawn().unwrap());
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(
            output.status.success(),
            "{}$ {command}\n{}\n{all}",
            self.name,
            output.status
        );
        all
    }

    /// Starts one that stays.
    #[track_caller]
    pub(crate) fn start(&self, command: &str) -> Job {
        Job::of(
            &mut self.shell(command),
            format!("{}$ {command}", self.name),
        )
    }

    /// The same, at a terminal.
    pub(crate) fn sit_down(&self, command: &str) -> Desk {
        let enter = self.enter();
        let mut words: Vec<&str> = enter.iter().map(String::as_str).collect();
        // In the place of the shell, which Ctrl-C would end, too.
        let command = format!("exec {command}");
        words.extend(["TERM=xterm", "sh", "-c", &command]);
        Desk::of(&self.place, &words, (24, 80), |_| {})
    }

    /// A file of this machine as seen from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root{path}", self.holder.id())).to_owned()
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Puts a script in the place of a program that is not here, or that would reach out of the machine.
    pub(crate) fn stand_in(&self, name: &str, script: &str) {
        let path = format!("/usr/local/bin/{name}");
        self.write(&path, script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(&path), mode).unwrap();
    }

    /// `ssh NAME WORDS…` reaches this machine as the program does: the words are joined, and a shell there reads them.
    pub(crate) fn ssh_to(&self, other: &Self) {
        let enter = other.enter().join(" ");
        let script = format!(
            "#!/bin/sh\nwhile :; do\n    case $1 in\n    --) shift; break ;;\n    -*) shift ;;\n    *) break ;;\n    esac\ndone\n\
             shift\nexec {enter} sh -c \"$*\"\n"
        );
        self.stand_in("ssh", &script);
    }

    /// `docker exec -i box WORDS…` starts them on this machine, as they are.
    pub(crate) fn docker_exec_to(&self, other: &Self) {
        let enter = other.enter().join(" ");
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'exec -i box' ] || exit 9\nshift 3\nexec {enter} \"$@\"\n"
        );
        self.stand_in("docker", &script);
    }

    /// A service that answers HTTP with this text, until the machine is gone.
    pub(crate) fn web(&self, place: &str, said: &str) -> Job {
        self.write("/usr/local/lib/web.py", WEB);
        let mut job = self.start(&format!(
            "exec python3 /usr/local/lib/web.py {place} '{said}'"
        ));
        job.line("up");
        job
    }

    /// This machine's id, made if it has none.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        let said = self.run("cepa id show 2>/dev/null");
        said.split_whitespace().next().unwrap().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whatever was started in it, daemons too.
        let own = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).map(|it| it.ino());
        let holder = self.holder.id().to_string();
        if let (Ok(net), Ok(all)) = (own(&holder), fs::read_dir("/proc")) {
            for process in all.flatten() {
                let pid = process.file_name().to_string_lossy().into_owned();
                let is_process = pid.bytes().all(|c| c.is_ascii_digit()) && pid != holder;
                if is_process && own(&pid).is_ok_and(|its| its == net) {
                    crate::common::signal(&pid, "KILL");
                }
            }
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A serial line between two machines: a device in `/dev` of each, as long as this lives.
pub(crate) fn line(near: &Machine, here: &str, far: &Machine, there: &str) -> SerialLine {
    let place = Place::new();
    let runtime = join(&place, &LineSettings::new(92_160.0), 1);
    for (end, machine, name) in [("a", near, here), ("b", far, there)] {
        let device = fs::read_link(place.path(end)).unwrap();
        machine.run(&format!("ln -s {} /dev/{name}", device.display()));
    }
    SerialLine {
        _runtime: runtime,
        _place: place,
    }
}

pub(crate) struct SerialLine {
    _runtime: tokio::runtime::Runtime,
    _place: Place,
}

/// The first word on a screen that begins so, when the line that it stands in is whole.
#[track_caller]
pub(crate) fn word_on(desk: &mut Desk, beginning: &str) -> String {
    desk.until(beginning);
    desk.until("\n");
    let from = desk.passed.rfind(beginning).unwrap();
    let word = desk.passed[from..].split_whitespace().next().unwrap();
    word.trim_end_matches([',', ';', '.', ':']).to_owned()
}

/// A running command; all of it is ended when this is dropped.
pub(crate) struct Job {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    what: String,
}

impl Job {
    #[track_caller]
    fn of(command: &mut Command, what: String) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let out: Box<dyn std::io::Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn std::io::Read + Send> = Box::new(child.stderr.take().unwrap());
        for stream in [out, err] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(unstamped(&line).to_owned());
                }
            });
        }
        Self {
            child,
            lines,
            seen: Vec::new(),
            what,
        }
    }

    /// The first line that has this in it, whether it has come or will come.
    #[track_caller]
    pub(crate) fn line(&mut self, with: &str) -> String {
        let mut at = 0;
        loop {
            if let Some(line) = self.seen.get(at) {
                if line.contains(with) {
                    return line.clone();
                }
                at += 1;
                continue;
            }
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(why) => {
                    let how = match why {
                        RecvTimeoutError::Timeout => "it does not say",
                        RecvTimeoutError::Disconnected => "it ended without",
                    };
                    panic!("{}\n{how} {with:?}: {:#?}", self.what, self.seen)
                }
            }
        }
    }

    /// The first word that begins so, without what ends a sentence.
    #[track_caller]
    pub(crate) fn word(&mut self, beginning: &str) -> String {
        let line = self.line(beginning);
        let word = line.split(' ').find(|word| word.starts_with(beginning));
        let word = word.unwrap_or_else(|| panic!("no word {beginning:?} in {line:?}"));
        word.trim_end_matches([',', ';', '.', ':']).to_owned()
    }

    /// Ctrl-C; waits for its end, and gives all its lines.
    #[track_caller]
    pub(crate) fn interrupt(mut self) -> Vec<String> {
        let group = format!("-{}", self.child.id());
        let mut kill = Command::new("kill");
        assert!(
            kill.args(["-INT", "--", &group])
                .status()
                .unwrap()
                .success()
        );
        self.rest()
    }

    fn rest(&mut self) -> Vec<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}\nhas no end: {:#?}", self.what, self.seen)
                }
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let signal = |name: &str| {
            let mut kill = Command::new("kill");
            kill.args([name, "--", &group]).stderr(Stdio::null());
            kill.status().is_ok_and(|status| status.success())
        };
        signal("-KILL");
        let _ = self.child.wait();
        // What the shell has started holds its line until it is gone, too. (Where nobody reaps it, it never is.)
        for _ in 0..1000 {
            if !signal("-0") {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
