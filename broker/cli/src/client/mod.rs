//! A Kafka client for the command line: finds leaders and coordinators, sends requests, retries retriable errors.
//!
//! Speaks to any broker, not only to Ottla. May not know: any floor of the broker, and what is printed.

pub mod address;
mod assignment;
mod brokers;
mod cluster;
mod connection;
mod error;
mod features;
mod groups;
pub mod http;
mod murmur2;
mod nodes;
mod offsets;
mod producer;
mod reader;
mod records;
mod retry;
mod topics;

pub use address::Address;
pub use brokers::{Broker, Brokers};
pub use cluster::{Cluster, ClusterView, PartitionView, TopicPartition, TopicView};
pub use error::ClientError;
pub use features::FeatureView;
pub use groups::{Commit, CommittedOffset, GroupMember, GroupView, ListedGroup};
pub use offsets::{EARLIEST, LATEST, ListedOffset};
pub use producer::{Acks, NewRecord, Producer, RecordMetadata, SEND_BYTES, Target};
pub use reader::{Reader, Start};
pub use records::ReadRecord;
pub use topics::{ConfigEdit, ConfigEntry, Created, NewTopic};
