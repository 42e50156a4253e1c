//! A fleet of relays on an etcd, as real processes on loopback: etcd, three `cepa relay`, nodes in a few processes; against the goals of
//! the fleet.
//!
//! ```text
//! cargo build --release -p cepa-cli && cargo run --release -p cepa-bench -- fleet [--only PART] [--nodes 3000] [--cepa PATH]
//! ```
//!
//! One line of JSON a measurement, with its goal and whether it is held. Memory (VmRSS) and CPU (proc(5), stat) are of the relays' and
//! etcd's processes alone.
//!
//! - `lookup`: circuits to a peer of the relay that is asked, and to one of another relay, in turn; what the second takes more.
//! - `copy`: bulk through one relay and through two, in turn; bytes for each second of the relays' CPU together.
//! - `etcd`: etcd is killed and started again, later than its leases last; with three members, the leader is killed. Circuits that were there go on,
//!   and every node is reached through another relay afterwards.
//! - `churn`: registrations come and go; memory of the relays, CPU of the relays and of etcd for each change.
//! - `kill`: one relay is killed; how long until all its nodes are reached through another one. Circuits through the others go on.
//!
//! | file | holds |
//! | --- | --- |
//! | `rig` | etcd, relays and nodes as processes |
//! | `nodes` | the process that has many nodes |
//! | `peers` | peers of this process: those that are dialled for bulk, and diallers |
//! | `measured` | each part |
//! | `options` | what it is asked |

mod measured;
pub(crate) mod nodes;
mod options;
mod peers;
mod rig;

use crate::Outcome;
use options::Part;

pub(crate) use options::Options;

pub(crate) fn run(options: &Options) -> Outcome<()> {
    crate::measure::allow_descriptors(20_000)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let done = runtime.block_on(async {
        let mut rig = rig::Rig::start(options).await?;
        if wanted(Part::Lookup) {
            measured::lookup(&mut rig, options).await?;
        }
        if wanted(Part::Copy) {
            measured::copy(&mut rig, options).await?;
        }
        if wanted(Part::Churn) {
            measured::churn(&mut rig, options).await?;
        }
        if wanted(Part::Etcd) {
            measured::etcd(&mut rig, options).await?;
        }
        // The last: one of the relays is gone then.
        if wanted(Part::Kill) {
            measured::kill(&mut rig, options).await?;
        }
        Ok(())
    });
    runtime.shutdown_background();
    done
}
