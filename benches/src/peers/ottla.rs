//! Ottla as it is shipped: the release build with its defaults, which sync before every acknowledgement.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, free_address, fresh_directory};

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

/// A node that has not been started yet.
pub(crate) fn prepare(binary: &Path, directory: PathBuf) -> Peer {
    fresh_directory(&directory);
    let address = free_address();
    let settings = vec![
        ("KAFKA_NODE_ID", "1".to_owned()),
        ("KAFKA_LISTENERS", format!("PLAINTEXT://{address}")),
        ("KAFKA_LOG_DIRS", directory.join("data").display().to_string()),
        ("OTTLA_ADMIN_LISTENER", free_address().to_string()),
    ];
    let command = vec![binary.display().to_string(), "start".to_owned()];
    let mut peer = Peer::new("ottla", address, directory, command);
    peer.settings = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    peer.settings.push("heap: what it needs (no limit is set)".to_owned());
    peer.environment = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
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
