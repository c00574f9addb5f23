//! One file per API: validate, one domain call, map the answer. No disk, no Raft, no locks, never each other.
