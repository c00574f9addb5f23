//! Coordinators: group state machines and their runtime. Decides; appends through `partition`; replays what commits.
