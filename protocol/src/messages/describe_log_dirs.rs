//! DescribeLogDirs (key 35): version 5 says whether a directory is cordoned (KIP-1066). The request is that of version 4.

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

use super::{message, structure};

message! {
    DescribeLogDirs;
    /// The data directories of a node.
    DescribeLogDirsResponse {
        throttle_time_ms: i32 = 0..;
        error_code: i16 = 3..;
        results: Vec<DescribeLogDirsResult> = 0..;
    }
}

structure! {
    /// A data directory.
    DescribeLogDirsResult {
        error_code: i16 = 0..;
        log_dir: StrBytes = 0..;
        topics: Vec<DescribeLogDirsTopic> = 0..;
        total_bytes: i64 = 4.., -1;
        usable_bytes: i64 = 4.., -1;
        is_cordoned: bool = 5..;
    }
}

structure! {
    /// A topic with partitions in the directory.
    DescribeLogDirsTopic {
        name: TopicName = 0..;
        partitions: Vec<DescribeLogDirsPartition> = 0..;
    }
}

structure! {
    /// A partition in the directory.
    DescribeLogDirsPartition {
        partition_index: i32 = 0..;
        partition_size: i64 = 0..;
        offset_lag: i64 = 0..;
        is_future_key: bool = 0..;
    }
}
