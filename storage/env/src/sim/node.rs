//! The name of a simulated machine.

/// A simulated machine. Node 0 is the outside: the scenario itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SimNode(pub u32);
