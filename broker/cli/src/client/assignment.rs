//! The partitions that a group's leader assigned to a member, in the format of classic consumers:
//!
//!     0         2
//!     | version | topics: name, partitions ... | user data |
//!
//! A client wrote the bytes, so every length is checked before it is used.

use ottla_protocol::wire::{Reader, WireError};

use super::cluster::TopicPartition;

/// Reads the partitions. `None` if the assignment is empty or in another format.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return None;
    }
    read(bytes).ok()
}

fn read(bytes: &[u8]) -> Result<Vec<TopicPartition>, WireError> {
    let mut reader = Reader::new(bytes);
    reader.i16()?;
    let mut partitions = Vec::new();
    // A topic takes at least the length of its name and the length of its list.
    for _ in 0..reader.array_count(false, 6)?.unwrap_or(0) {
        let name = reader.nullable_string(false)?.ok_or(WireError::NegativeLength)?;
        let name = std::str::from_utf8(name).map_err(|_| WireError::NotUtf8)?;
        for _ in 0..reader.array_count(false, 4)?.unwrap_or(0) {
            partitions.push((name.to_owned(), reader.i32()?));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_and_nonsense_is_none() {
        let written = [
            &[0, 1, 0, 0, 0, 2][..],
            &[0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0, 2, b'b', b'c', 0, 0, 0, 1, 0, 0, 0, 7],
            &[255, 255, 255, 255],
        ]
        .concat();
        let at = |topic: &str, index| (topic.to_owned(), index);
        assert_eq!(decode(&written), Some(vec![at("a", 0), at("a", 3), at("bc", 7)]));
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0, 1, 0x7f, 255, 255, 255]), None, "more topics than bytes");
        assert_eq!(decode(&[0, 1, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0]), None, "no UTF-8");
    }
}
