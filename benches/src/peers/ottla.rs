//! Ottla as it is shipped: the release build with its defaults, which sync before every acknowledgement.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ottla_tests::process::free_address;

use super::node::{Node, data_below};
use super::{Peer, Surroundings, fresh_directory, rack};

/// The release build of this workspace: built now unless a binary is given.
pub(crate) fn binary(given: Option<&Path>) -> PathBuf {
    if let Some(path) = given {
        return path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    println!("building Ottla: cargo build --release");
    let root = crate::root();
    let done = Command::new("cargo").args(["build", "--release", "-p", "ottla-broker"]).current_dir(&root).status();
    assert!(done.is_ok_and(|s| s.success()), "Ottla could not be built");
    let beside = std::env::current_exe().unwrap().with_file_name("ottla");
    assert!(beside.is_file(), "{} is missing: is this a release build?", beside.display());
    beside
}

/// So many nodes that have not been started yet: one alone, or a cluster.
pub(crate) fn prepare(binary: &Path, directory: PathBuf, count: usize, surroundings: &Surroundings) -> Peer {
    fresh_directory(&directory);
    let places: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
    let ways: Vec<SocketAddr> = places.iter().map(|place| surroundings.way_to(*place)).collect();
    let seeds = ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let command = surroundings.around(vec![binary.display().to_string(), "start".to_owned()]);
    let mut shown = Vec::new();
    let nodes = places.iter().enumerate().map(|(at, place)| {
        let (id, address, admin) = (at + 1, free_address(), free_address());
        let own = directory.join(format!("node-{id}"));
        let mut settings = vec![
            ("KAFKA_NODE_ID", id.to_string()),
            ("KAFKA_LISTENERS", format!("PLAINTEXT://{address}")),
            ("KAFKA_LOG_DIRS", data_below(&own).display().to_string()),
            ("OTTLA_ADMIN_LISTENER", admin.to_string()),
        ];
        if count > 1 {
            settings.push(("KAFKA_BROKER_RACK", rack(at)));
            settings.push(("OTTLA_CLUSTER_LISTENER", place.to_string()));
            settings.push(("OTTLA_CLUSTER_ADVERTISED_LISTENER", ways[at].to_string()));
            settings.push(("OTTLA_CLUSTER_SEEDS", seeds.clone()));
        }
        if at == 0 {
            shown = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        }
        let mut node = Node::new(i32::try_from(id).unwrap(), address, own, command.clone());
        node.admin = Some(admin);
        node.environment = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        node
    });
    let nodes = nodes.collect();
    let mut peer = Peer::new("ottla", directory, nodes);
    peer.settings = shown;
    peer.settings.push("heap: what it needs (no limit is set)".to_owned());
    peer.settings.extend(surroundings.shown());
    peer
}

/// The version of a binary and the commit it was built from; of a given binary only the caller knows.
pub(crate) fn version(binary: &Path, given: Option<&str>) -> String {
    let said = Command::new(binary).arg("--version").output();
    let said = said.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    if let Some(given) = given {
        return format!("{said}, {given}");
    }
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(crate::root()).output();
    let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    format!("{said}, commit {commit}")
}
