//! The command line of `cepa config`: its words and their help.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
The file is TOML: `config.toml` in the configuration folder. You create it, and
no other user may read or change it (chmod 600). Relative paths start at its
folder. What the command line says counts more than the file, and the file more
than the known peers. `cepa explain @NAME` shows what a name stands for.

  relay = \"cepa://RELAYID@tcp:HOST:7711\"  # for peers without an address
  proxy = \"env\"                           # like --proxy
  direct = \"public\"                       # like --direct
  control = true                          # like --share, for all commands
  [targets.board]                         # cepa console @board
  address = \"serial:/dev/ttyUSB0\"         # or a list of addresses
  expect = \"PEERID\"                       # or \"@NAME\"; like --expect
  service = \"sh\"                          # unless the command names one
  escape = \"none\"                         # like `cepa console --escape`
  log = \"board.log\"                       # like `cepa console --log`
  reconnect = true                        # like --reconnect
  control = false                         # true: like --share
  durable = true                          # false: like --no-durable
  park = \"1d\"                             # like --park
  trust = \"new\"                           # like --trust-new; \"any\": --trust
  ca = \"system\"                           # like --ca
  identity = \"board.pem\"                  # like --identity
  local_hints = true                      # like --local-hints

All keys are optional. Without `address`, the known peer of that name says where
it is; without `expect`, `trust` and `ca`, the known peer of that name, if there
is one, must answer.")]
pub(crate) enum Config {
    /// Print where the file is
    Path,
    /// Check the file, and report what is wrong with it
    Check,
}
