//! Space: live bytes per segment, the check before an unlink and its pace, and the reserve for a full disk.
//!
//! May not know: topic configurations; cutoffs and sizes come as numbers.

pub(crate) mod append_rate;
pub(crate) mod reserve;
pub(crate) mod table;
pub(crate) mod unlink_pace;
