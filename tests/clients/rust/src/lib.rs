//! What the Rust scenarios share: which version of a library was built into them.

/// How many nodes a topic is to lie on, as run.py says of the cluster.
#[must_use]
pub fn replication_factor() -> i16 {
    std::env::var("TEST_REPLICATION_FACTOR").map_or(1, |said| said.parse().expect("a number"))
}

/// The version of a package in this workspace's lock file.
#[must_use]
pub fn locked_version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let from = lock.find(&format!("name = \"{package}\"")).expect("the package is in the lock file");
    lock[from..].split('"').nth(3).expect("a version after the name")
}
