//! The events of a history: what clients invoked and what they were answered. One event is one line of JSONL.
//!
//! The model is that of Jepsen's kafka workload (`jepsen.tests.kafka`): a process invokes an operation, which later
//! completes as `ok`, as certainly not done (`fail`), or with an unknown outcome (`info`). A partition is a number that
//! the runner maps one to one to a topic and a partition. A value is a number that is sent only once in a partition; a
//! client that sends it again by itself makes one attempt more, and as many copies are legal.
//!
//! May not know: what makes a history wrong.

use serde::{Deserialize, Serialize};

/// The state of an operation at an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Invoke,
    /// It happened, and this is what it returned.
    Ok,
    /// It did not happen and never will.
    Fail,
    /// It may have happened, or happen later.
    Info,
}

/// One line of a history. Lines are in the order of one monotonic clock; `time` never falls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    #[serde(default)]
    pub time: u64,
    /// The acting process; it has one operation at a time.
    pub process: u32,
    /// The Kafka client with which it acts; a crash ends the client, and the process goes on with a new one.
    pub client: u32,
    #[serde(rename = "type")]
    pub phase: Phase,
    #[serde(rename = "do")]
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Plain sends, without a transaction.
    Send(Vec<Sent>),
    Poll(Polled),
    Txn(Transaction),
    /// The consumer assigns itself these partitions; positions in those that it had already stay.
    Assign {
        partitions: Vec<u32>,
        #[serde(default)]
        from_beginning: bool,
    },
    /// The consumer subscribes to these; its assignment may change at any time.
    Subscribe {
        partitions: Vec<u32>,
    },
    /// The client is discarded.
    Crash,
    /// A reader of its own reads partitions from the log start until their `ends`.
    Read(FullRead),
    Commit(GroupOffset),
    /// The committed offset, or none.
    Fetch(GroupOffset),
    InitProducer {
        id: u64,
        epoch: u32,
    },
    /// With an invocation: records below are deleted on request. Without one: the log was seen to begin here.
    LogStart {
        partition: u32,
        offset: u64,
    },
    /// A mark: the partition is compacted by key.
    Compacted {
        partition: u32,
    },
}

/// One record to be written; the offset is the broker's answer, if there was one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub partition: u32,
    pub value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The record's key, where the partition is compacted or a bank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u64>,
    /// The record deletes its key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstone: bool,
    /// What the record adds to its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
}

/// The producer id, epoch and sequence of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Producer {
    pub id: u64,
    pub epoch: u32,
    pub sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub partition: u32,
    pub offset: u64,
    pub value: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled {
    #[serde(default)]
    pub records: Vec<Record>,
    /// Partitions that a rebalance gave or took since the client's operation before this one ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebalanced: Vec<u32>,
    /// The reader is at read_uncommitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted: bool,
}

/// Up to `MICRO_MAX` micro-operations of one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub micro: Vec<Micro>,
    /// The client aborted, and the abort succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abort: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebalanced: Vec<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Micro {
    Send(Sent),
    Poll(Vec<Record>),
    /// Offsets committed with the transaction.
    Commit(GroupOffset),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullRead {
    #[serde(default)]
    pub records: Vec<Record>,
    /// Partition and the offset up to which it was read: nothing that the reader may see is left below.
    pub ends: Vec<(u32, u64)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffset {
    pub group: u32,
    /// The member's generation or epoch; none for a client that is no member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    pub partition: u32,
    /// None: a fetch found nothing committed.
    pub offset: Option<u64>,
}
