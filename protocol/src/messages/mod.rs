//! Messages of which kafka-protocol does not know the newest version yet, each declared once, field by field.
//!
//! [`message!`] makes the struct, its defaults and kafka-protocol's traits, so that a type here stands in for the crate's of the same
//! name until that has caught up. Names, order and versions of the fields are those of Kafka's message definitions
//! (`common/message` in kafka-clients 4.4.0). A field that a version does not have is left out, as all of these fields are what
//! Kafka calls ignorable; tagged fields are skipped. May not know: what a message means.

mod api_versions;
mod delete_groups;
mod describe_log_dirs;
mod field;
mod offset_commit;
mod offset_fetch;
#[cfg(test)]
mod tests;
mod txn_offset_commit;
mod write_txn_markers;

pub use api_versions::ApiVersionsRequest;
pub use delete_groups::{DeletableGroupResult, DeleteGroupsResponse};
pub use describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
pub use offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
pub use txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
pub use write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest};

/// A struct of a message: `name: type = versions, default`. The default is the type's own if none is given.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $versions:expr $(, $default:expr)?;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: structure!(@default $($default)?),)* }
            }
        }

        impl $crate::messages::field::Field for $name {
            fn encode(&self, out: &mut bytes::BytesMut, encoding: $crate::messages::field::Encoding) {
                $(if ($versions).contains(&encoding.version) {
                    self.$field.encode(out, encoding);
                })*
                $crate::wire::put_no_tags(out, encoding.flexible);
            }

            fn decode(from: &mut $crate::messages::field::Source<'_>) -> anyhow::Result<Self> {
                let mut taken = Self::default();
                $(if ($versions).contains(&from.encoding.version) {
                    taken.$field = $crate::messages::field::Field::decode(from)?;
                })*
                from.skip_tags()?;
                Ok(taken)
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

/// A structure that is a whole message of an API: in the versions of the table, flexible (KIP-482) from where that says.
macro_rules! message {
    ($api:ident; $(#[$doc:meta])* $name:ident { $($fields:tt)* }) => {
        $crate::messages::structure! { $(#[$doc])* $name { $($fields)* } }

        impl kafka_protocol::protocol::Encodable for $name {
            fn encode<B: kafka_protocol::protocol::buf::ByteBufMut>(&self, out: &mut B, version: i16) -> anyhow::Result<()> {
                let encoding = $crate::messages::field::Encoding::of(version, $crate::versions::ApiKey::$api)?;
                out.put_slice(&$crate::messages::field::encoded(self, encoding));
                Ok(())
            }

            fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
                let encoding = $crate::messages::field::Encoding::of(version, $crate::versions::ApiKey::$api)?;
                Ok($crate::messages::field::encoded(self, encoding).len())
            }
        }

        impl kafka_protocol::protocol::Decodable for $name {
            fn decode<B: kafka_protocol::protocol::buf::ByteBuf>(from: &mut B, version: i16) -> anyhow::Result<Self> {
                let encoding = $crate::messages::field::Encoding::of(version, $crate::versions::ApiKey::$api)?;
                $crate::messages::field::decoded(from, encoding)
            }
        }
    };
}

/// The versions of a message of this API, and of the header before it.
macro_rules! versions {
    ($name:ident of $api:ident, header $header_version:ident) => {
        impl kafka_protocol::protocol::Message for $name {
            const VERSIONS: kafka_protocol::protocol::VersionRange = {
                let range = $crate::versions::ApiKey::$api.range();
                kafka_protocol::protocol::VersionRange { min: range.min, max: range.max }
            };
            const DEPRECATED_VERSIONS: Option<kafka_protocol::protocol::VersionRange> = None;
        }

        impl kafka_protocol::protocol::HeaderVersion for $name {
            fn header_version(version: i16) -> i16 {
                $crate::versions::ApiKey::$api.$header_version(version)
            }
        }
    };
}

/// A message that is a request of this API, for who sends it.
macro_rules! request {
    ($name:ident of $api:ident, answered by $response:ty) => {
        $crate::messages::versions! { $name of $api, header request_header_version }

        impl kafka_protocol::protocol::Request for $name {
            const KEY: i16 = $crate::versions::ApiKey::$api as i16;
            type Response = $response;
        }
    };
}

use {message, request, structure, versions};
