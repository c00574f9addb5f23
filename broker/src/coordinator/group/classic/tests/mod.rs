//! Dialogues with the machine, and the properties it keeps whatever is said to it.
#![allow(clippy::unwrap_used)]

mod dialogue;
mod failover;
mod joining;
mod leaving;
mod observer;
mod properties;
mod static_members;
