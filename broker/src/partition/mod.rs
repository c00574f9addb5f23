//! All that a client may know of a partition; which shard carries it is invisible from here up.
