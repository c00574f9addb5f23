//! The land registry: one Raft group with one writer; everybody reads an immutable image swapped whole.
