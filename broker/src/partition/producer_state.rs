//! Producer state.
