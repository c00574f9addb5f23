//! Builds everything; only `main` and tests call it.
