//! DeleteGroups (key 42): version 3 says why a group was not deleted. The request is that of version 2.

use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

use super::{message, structure};

message! {
    DeleteGroups;
    /// What became of each group.
    DeleteGroupsResponse {
        throttle_time_ms: i32 = 0..;
        results: Vec<DeletableGroupResult> = 0..;
    }
}

structure! {
    /// What became of a group.
    DeletableGroupResult {
        group_id: GroupId = 0..;
        error_code: i16 = 0..;
        error_message: Option<StrBytes> = 3..;
    }
}
