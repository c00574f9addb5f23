//! What apply changes in groups: the store, and the bytes of its records.

mod pending;
mod records;
mod store;
