//! The environment behind a facade: disk, network, clock, tasks and randomness, real or simulated.
//!
//! All other code calls this facade; clippy bans the originals elsewhere. May not know: any other crate of Ottla.

pub mod critical;
pub mod disk;
pub mod mutants;
pub mod net;
pub mod real;
pub mod rt;
pub mod sim;
pub mod sync;
pub mod watch;
