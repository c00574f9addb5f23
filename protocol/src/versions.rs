//! The one table of served APIs and their versions, and the header version of each message.
//!
//! ApiVersions responses are built from it and the dispatcher enforces it; an API is listed only once it is
//! implemented. May not know: what a request means.
//!
//! Produce is the one range that is advertised and refused: 0-2 are in it because librdkafka turns
//! compression off otherwise (KAFKA-18659), while the old message formats are refused.
//! InitProducerId 6 is not in it: Kafka 4.4 calls it unstable.

/// One row of the table: an API, the versions that are advertised, and where its flexible encoding
/// (KIP-482: compact lengths, tagged fields) begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRange {
    /// The API.
    pub key: ApiKey,
    /// Its name in Kafka's documentation.
    pub name: &'static str,
    /// Lowest advertised version.
    pub min: i16,
    /// Highest advertised version.
    pub max: i16,
    /// First version with the flexible encoding; `i16::MAX` if none has it.
    pub flexible_from: i16,
}

impl ApiRange {
    /// True if a request of this version is decoded and served.
    #[must_use]
    pub fn serves(&self, version: i16) -> bool {
        let lowest = if matches!(self.key, ApiKey::Produce) { PRODUCE_SERVED_FROM } else { self.min };
        (lowest..=self.max).contains(&version)
    }
}

/// Produce 0-2 carry message formats 0 and 1, which Kafka 4 no longer accepts.
const PRODUCE_SERVED_FROM: i16 = 3;
const NEVER_FLEXIBLE: i16 = i16::MAX;

macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal ..= $max:literal, $flexible:expr;)*) => {
        /// The served APIs, with their numbers on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[allow(missing_docs)]
        pub enum ApiKey { $($name = $key,)* }

        /// THE table, in the order of the keys.
        pub const SUPPORTED: &[ApiRange] = &[
            $(ApiRange { key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, flexible_from: $flexible },)*
        ];

        impl ApiKey {
            /// The API with this number, if it is served.
            #[must_use]
            pub fn from_code(code: i16) -> Option<Self> {
                match code { $($key => Some(Self::$name),)* _ => None }
            }

            /// Its row in the table.
            #[must_use]
            pub const fn range(self) -> &'static ApiRange {
                // One constant per API, so that no search is needed on the hot path.
                match self {
                    $(Self::$name => const { &ApiRange { key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, flexible_from: $flexible } },)*
                }
            }
        }
    };
}

apis! {
    Produce = 0, 0..=13, 9;
    Fetch = 1, 4..=18, 12;
    ListOffsets = 2, 1..=11, 6;
    Metadata = 3, 0..=13, 9;
    OffsetCommit = 8, 2..=10, 8;
    OffsetFetch = 9, 1..=10, 6;
    FindCoordinator = 10, 0..=6, 3;
    JoinGroup = 11, 0..=9, 6;
    Heartbeat = 12, 0..=4, 4;
    LeaveGroup = 13, 0..=5, 4;
    SyncGroup = 14, 0..=5, 4;
    DescribeGroups = 15, 0..=6, 5;
    ListGroups = 16, 0..=5, 3;
    SaslHandshake = 17, 0..=1, NEVER_FLEXIBLE;
    ApiVersions = 18, 0..=5, 3;
    CreateTopics = 19, 2..=7, 5;
    DeleteTopics = 20, 1..=6, 4;
    DeleteRecords = 21, 0..=2, 2;
    InitProducerId = 22, 0..=5, 2;
    OffsetForLeaderEpoch = 23, 2..=4, 4;
    AddPartitionsToTxn = 24, 0..=5, 3;
    AddOffsetsToTxn = 25, 0..=4, 3;
    EndTxn = 26, 0..=5, 3;
    WriteTxnMarkers = 27, 1..=2, 1;
    TxnOffsetCommit = 28, 0..=6, 3;
    DescribeAcls = 29, 1..=3, 2;
    CreateAcls = 30, 1..=3, 2;
    DeleteAcls = 31, 1..=3, 2;
    DescribeConfigs = 32, 1..=4, 4;
    AlterConfigs = 33, 0..=2, 2;
    AlterReplicaLogDirs = 34, 1..=2, 2;
    DescribeLogDirs = 35, 1..=5, 2;
    CreatePartitions = 37, 0..=3, 2;
    DeleteGroups = 42, 0..=3, 2;
    ElectLeaders = 43, 0..=2, 2;
    IncrementalAlterConfigs = 44, 0..=1, 1;
    AlterPartitionReassignments = 45, 0..=1, 0;
    ListPartitionReassignments = 46, 0..=0, 0;
    OffsetDelete = 47, 0..=0, NEVER_FLEXIBLE;
    DescribeQuorum = 55, 0..=2, 0;
    UpdateFeatures = 57, 0..=2, 0;
    DescribeCluster = 60, 0..=2, 0;
    DescribeProducers = 61, 0..=0, 0;
    UnregisterBroker = 64, 0..=0, 0;
    DescribeTransactions = 65, 0..=0, 0;
    ListTransactions = 66, 0..=2, 0;
    ListConfigResources = 74, 0..=1, 0;
    DescribeTopicPartitions = 75, 0..=0, 0;
}

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The name in Kafka's documentation; also the label of metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.range().name
    }

    /// True if this version uses compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.range().flexible_from
    }

    /// Version of the request header: 1 has a client id, 2 has tagged fields as well.
    #[must_use]
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 has tagged fields. ApiVersions always uses 0,
    /// because a client that does not know the broker's versions yet must be able to read the response.
    #[must_use]
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self != ApiKey::ApiVersions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_ranges_are_sane() {
        for pair in SUPPORTED.windows(2) {
            assert!(pair[0].key < pair[1].key);
        }
        for row in SUPPORTED {
            assert!(row.min >= 0 && row.min <= row.max, "{}", row.name);
            assert_eq!(ApiKey::from_code(row.key.code()), Some(row.key));
            assert_eq!(row.key.range(), row);
            assert!(row.serves(row.max) && !row.serves(row.max + 1));
        }
        assert_eq!(ApiKey::from_code(4), None);
        assert_eq!(ApiKey::from_code(-1), None);
    }

    /// librdkafka switches gzip, snappy and lz4 off unless Produce is advertised from 0.
    #[test]
    fn produce_is_advertised_from_0_and_served_from_3() {
        let produce = ApiKey::Produce.range();
        assert_eq!(produce.min, 0);
        assert!(!produce.serves(2) && produce.serves(3));
    }

    #[test]
    fn header_versions_agree_with_the_kafka_protocol_crate() {
        for row in SUPPORTED {
            let theirs = kafka_protocol::messages::ApiKey::try_from(row.key.code()).unwrap();
            for version in row.min..=row.max {
                if row.key == ApiKey::Produce && version < 3 {
                    continue;
                }
                let at = format!("{} v{version}", row.name);
                assert_eq!(row.key.request_header_version(version), theirs.request_header_version(version), "{at}");
                assert_eq!(row.key.response_header_version(version), theirs.response_header_version(version), "{at}");
            }
        }
    }
}
