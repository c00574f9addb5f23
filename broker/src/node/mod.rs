//! Building of a node.
