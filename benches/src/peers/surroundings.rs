//! What stands between the nodes of a cluster and under them, the same for each broker: a way that takes time, and disks whose
//! syncs take longer.
//!
//! May not know: which broker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ottla_tests::links;

/// What a cluster stands in; by default nothing but this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// From a node to another one and back.
    pub(crate) round_trip: Duration,
    /// How much longer each sync takes.
    pub(crate) sync: Duration,
}

impl Surroundings {
    /// Where other nodes reach what listens at an address.
    pub(crate) fn way_to(&self, listener: SocketAddr) -> SocketAddr {
        if self.round_trip.is_zero() { listener } else { links::delayed(listener, self.round_trip / 2) }
    }

    /// The command by which a node is started.
    pub(crate) fn around(&self, command: Vec<String>) -> Vec<String> {
        if self.sync.is_zero() {
            return command;
        }
        let launcher = [slow_sync().display().to_string(), self.sync.as_micros().to_string()];
        launcher.into_iter().chain(command).collect()
    }

    /// As it is printed.
    pub(crate) fn shown(&self) -> Option<String> {
        let what = format!("{:?} from node to node and back, {:?} more for each sync", self.round_trip, self.sync);
        (*self != Self::default()).then_some(what)
    }
}

/// `slow_sync.c`, compiled now.
fn slow_sync() -> PathBuf {
    let program = crate::target().join("slow_sync");
    let source = crate::root().join("benches/slow_sync.c");
    let done = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(&source).status();
    assert!(done.is_ok_and(|s| s.success()), "{} could not be compiled", source.display());
    program
}
