//! Validates topic names. Pure.
//!
//! Names become metric labels and directory names elsewhere, where `.` and `_` are the same: two names that differ only
//! in these collide.

use super::error::MetadataError;
use super::image::{CONSUMER_OFFSETS, MetadataImage, TRANSACTION_STATE};

/// The longest name.
const NAME_CHARACTERS_MAX: usize = 249;
/// Kafka's own metadata topic: no client may create it.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Checks a name without the names of other topics.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION, with the rule that is broken.
pub fn check_name(name: &str) -> Result<(), MetadataError> {
    let invalid = |why: &str| Err(MetadataError::InvalidTopic(why.to_owned()));
    if name.is_empty() {
        return invalid("Topic name is invalid: the empty string is not allowed");
    }
    if name == "." || name == ".." {
        return invalid("Topic name is invalid: '.' and '..' are not allowed");
    }
    if name.len() > NAME_CHARACTERS_MAX {
        return invalid("Topic name is invalid: it is longer than 249 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return invalid(
            "Topic name is invalid: it contains characters other than ASCII letters, digits, '.', '_' and '-'",
        );
    }
    Ok(())
}

/// True when the name is valid for a topic.
#[must_use]
pub fn is_valid_topic_name(name: &str) -> bool {
    check_name(name).is_ok()
}

/// True for the names that only the broker itself uses.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | TRANSACTION_STATE | CLUSTER_METADATA)
}

/// True when the names differ at most in `.` and `_`.
fn collide(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Checks a new topic's name against those that exist.
///
/// # Errors
/// TOPIC_ALREADY_EXISTS, or INVALID_TOPIC_EXCEPTION when it collides.
pub fn check_new(image: &MetadataImage, name: &str) -> Result<(), MetadataError> {
    if image.topics.contains_key(name) {
        return Err(MetadataError::TopicExists(name.to_owned()));
    }
    if name.contains(['.', '_'])
        && let Some(other) = image.topics.keys().find(|other| collide(name, other))
    {
        return Err(MetadataError::InvalidTopic(format!("Topic '{name}' collides with existing topic: {other}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(250);
        for bad in ["", ".", "..", "../../etc", "a\0b", "a b", "ä", "a/b", long.as_str()] {
            assert!(matches!(check_name(bad), Err(MetadataError::InvalidTopic(_))), "{bad:?}");
        }
        let longest = "a".repeat(249);
        for good in ["a", "...", "A-b_c.9", longest.as_str(), "__x"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn names_that_differ_in_dots_and_underscores_collide() {
        assert!(collide("a.b_c", "a_b.c") && !collide("a.b", "a-b") && !collide("a.b", "a.bc"));
    }
}
