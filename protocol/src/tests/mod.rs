//! Whole messages as bytes: round trips, and golden files.

mod codec;
mod golden;
