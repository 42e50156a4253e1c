//! The command line of `cepa node`: its words and their help.

use std::path::PathBuf;

use clap::Args;

use super::watching::Watching;

#[derive(Debug, Args)]
#[command(after_help = "\
The file is TOML. Relative paths start at the file's folder. SIGHUP or `cepa
reload` reloads it: services, permissions, new listeners and new relays take
effect, and sessions go on. When the terminal that it was started in closes, the
node ends (not under nohup or setsid). docs/MESH.md describes every key.

  identity = \"node.pem\"                     # default: this user's identity
  control = \"node.sock\"                     # for `cepa status`
  metrics = \"9100\"                         # like --metrics
  state = \"node.state\"                      # see below
  listen = [\"tcp:0.0.0.0:7000\"]
  gate = \"per-host=32\"                      # like `cepa serve --gate`
  sessions_a_peer = 16                      # like --sessions-a-peer
  commands_a_peer = 32                      # like --commands-a-peer
  durable = true                            # false: like --no-durable
  park = \"10min\"                          # like --park
  keep_consoles = \"1d\"                     # like --keep-consoles
  register = [\"cepa://RELAYID@tcp:HOST:7711\"]
  allow_status = [\"@NAME\"]                 # like --allow-status
  mdns = \"network\"                        # like `cepa serve --mdns`
  direct = \"yes\"                            # like --direct
  [services.up]
  to = \"exec:sha256sum\"                     # like `cepa serve --service`
  allow = [\"PEERID\", \"@NAME\"]               # default: nobody
  introducers = [\"PEERID\"]                  # who may introduce others
  sealed = true                             # accepts `cepa send`
  [services.db]
  to = \"cepa://PEERID@tcp:HOST:7000/db\"     # another peer's service
  membrane = \"friends\"                      # wraps references that pass
  [membranes.friends]
  revoked = false                           # true revokes all that passed
  [relay]
  allow = [\"any\"]
  [carrier]                                 # delivers sealed messages
  allow = [\"any\"]

`state` remembers across restarts which introductions were used or revoked.
Without it, a used one works again if the clock was set back. The node creates
the file.")]
pub(crate) struct NodeRun {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only check the file, and report what is wrong with it
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) watching: Watching,
}
