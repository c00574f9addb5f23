//! Space: live bytes per segment, the check before an unlink, retention points and the reserve for a full disk.
//!
//! May not know: topic configurations; cutoffs and sizes come as numbers.
