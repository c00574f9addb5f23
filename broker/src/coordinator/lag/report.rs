//! The lag report that pages show, the filter of a request, and both as bytes between nodes.
//!
//!  request: | version u8: 1 or 2 | group, topic, exact group: optional string | any replica u8 |
//!           | list: partition of __consumer_offsets varint |
//!  answer:  | version u8 of the request | list: partition of __consumer_offsets varint, list: group |
//!  group:   | name | protocol type | generation i32 | members varint | coordinator i32, -1 for none |
//!           | from version 2 on: isolation level u8 | list: topic |
//!  topic:   | name | list: partition varint, committed i64, status u8, commits in the window u8, measured u8 (0: end),
//!                          end i64, lag i64, age ms i64, behind ms i64, -1 if unknown,
//!                          from version 2 on: by end u8 (0: end), last stable i64, lag to the high watermark i64,
//!                          lag to the last stable offset i64 |
//!
//! A node of a release up to 0.5.29 refuses version 2: it is asked by version 1, and asks by it. Decoding never panics. May not know: where the numbers come from.

use bytes::Bytes;
use ottla_protocol::ids::NodeId;

use super::status::{Status, WINDOW_COMMITS};
use crate::codec::{
    CodecError, Each, Encoding, Optional, OrMinusOne, Plain, Reader, Value, Varint, Writer, decode_version,
    encode_version, record,
};
use crate::config::NameFilter;
use crate::partition::Isolation;

/// A version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Groups have one lag.
    ByHighWatermark = 1,
    /// Groups have a lag by each end, too.
    Newest = 2,
}

impl Version {
    /// That of a request or an answer, by its first byte.
    fn of(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.first() {
            Some(1) => Ok(Self::ByHighWatermark),
            Some(2) => Ok(Self::Newest),
            Some(other) => Err(CodecError::Version(*other)),
            None => Err(CodecError::Truncated("version")),
        }
    }
}

/// The groups and topics of a request; all of them where there is no filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) group: Option<NameFilter>,
    pub(crate) topic: Option<NameFilter>,
    /// One group by its name.
    pub(crate) exact: Option<String>,
}

/// A group and its lag.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupLag {
    pub(crate) name: String,
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) members: usize,
    /// The node that coordinates it; none if a replica of its partition answered because no coordinator does.
    pub(crate) coordinator: Option<NodeId>,
    /// Which records it reads: its lag is that to the end of them.
    pub(crate) isolation: Isolation,
    pub(crate) topics: Vec<TopicLag>,
}

/// A group in one topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicLag {
    pub(crate) name: String,
    pub(crate) partitions: Vec<PartitionLag>,
}

/// A group in one partition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PartitionLag {
    pub(crate) index: i32,
    pub(crate) committed: i64,
    pub(crate) status: Status,
    /// Commits that the window of the status holds, of [`WINDOW_COMMITS`].
    pub(crate) window_commits: u8,
    /// Absent until the partition's leader has answered for the first time.
    pub(crate) measured: Option<MeasuredLag>,
}

/// The lag in a partition whose leader has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MeasuredLag {
    /// The high watermark.
    pub(crate) end: i64,
    pub(crate) lag: i64,
    /// The age of these values.
    pub(crate) age_ms: i64,
    /// Age of the first record that is not committed, 0 when there is none.
    pub(crate) behind_ms: Option<i64>,
    /// Absent in the answers of older releases.
    pub(crate) by_end: Option<LagByEnd>,
}

/// The lag by each end; `lag` is one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LagByEnd {
    /// The last stable offset.
    pub(crate) last_stable: i64,
    pub(crate) high_watermark_lag: i64,
    pub(crate) last_stable_lag: i64,
}

/// The requested groups, by name, and the partitions of `__consumer_offsets` for which no replica has answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) groups: Vec<GroupLag>,
    pub(crate) missing: Vec<i32>,
}

impl GroupLag {
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &PartitionLag> {
        self.topics.iter().flat_map(|topic| &topic.partitions)
    }

    pub(crate) fn status(&self) -> Status {
        Status::of_group(self.partitions().map(|partition| partition.status))
    }

    /// Age of the oldest values of its partitions, 0 without any.
    pub(crate) fn age_ms(&self) -> i64 {
        self.partitions().filter_map(|partition| Some(partition.measured?.age_ms)).max().unwrap_or(0)
    }

    /// Partitions of which the lag is not known.
    pub(crate) fn unknown(&self) -> usize {
        self.partitions().filter(|partition| partition.measured.is_none()).count()
    }

    /// The sum of the lag; absent where it is not known of each partition.
    pub(crate) fn lag(&self) -> Option<i64> {
        self.topics.iter().map(TopicLag::lag).sum()
    }

    /// The same by each end, to the high watermark and to the last stable offset.
    pub(crate) fn lag_by_end(&self) -> [Option<i64>; 2] {
        let by_topic: Vec<_> = self.topics.iter().map(TopicLag::lag_by_end).collect();
        [0, 1].map(|end: usize| by_topic.iter().map(|lags| lags.get(end).copied().flatten()).sum())
    }

    /// Age of the oldest record that is not committed, of those that are known.
    pub(crate) fn behind_ms(&self) -> Option<i64> {
        self.partitions().filter_map(|partition| partition.measured?.behind_ms).max()
    }
}

impl TopicLag {
    /// The sum of the lag; absent where it is not known of each partition.
    pub(crate) fn lag(&self) -> Option<i64> {
        self.partitions.iter().map(|partition| Some(partition.measured?.lag)).sum()
    }

    /// The same by each end, to the high watermark and to the last stable offset.
    pub(crate) fn lag_by_end(&self) -> [Option<i64>; 2] {
        let sum =
            |of: fn(LagByEnd) -> i64| self.partitions.iter().map(|partition| partition.measured?.by_end.map(of)).sum();
        [sum(|by_end| by_end.high_watermark_lag), sum(|by_end| by_end.last_stable_lag)]
    }

    /// The sum of what is committed.
    pub(crate) fn committed(&self) -> i64 {
        self.partitions.iter().map(|partition| partition.committed).sum()
    }
}

impl PartitionLag {
    /// How much of the status's window there is, from 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn completeness(&self) -> f64 {
        f64::from(self.window_commits) / WINDOW_COMMITS as f64
    }
}

impl Filter {
    /// One group.
    pub(crate) fn one(group: &str) -> Self {
        Self { exact: Some(group.to_owned()), ..Self::default() }
    }

    pub(super) fn wants_group(&self, name: &str) -> bool {
        self.exact.as_ref().is_none_or(|exact| exact == name)
            && self.group.as_ref().is_none_or(|group| group.matches(name))
    }

    pub(super) fn wants_topic(&self, name: &str) -> bool {
        self.topic.as_ref().is_none_or(|topic| topic.matches(name))
    }

    /// True if groups without any of the requested topics are left out.
    pub(super) fn is_by_topic(&self) -> bool {
        self.topic.is_some()
    }
}

/// A request from one node to another.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) filter: Filter,
    /// Followers answer too.
    pub(super) any_replica: bool,
    /// Partitions of `__consumer_offsets`.
    pub(super) partitions: Vec<i32>,
}

impl Request {
    pub(super) fn encode(&self, version: Version) -> Bytes {
        encode_version(version as u8, self)
    }

    /// With the version in which it is to be answered.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Version, Self), CodecError> {
        let version = Version::of(bytes)?;
        Ok((version, decode_version(version as u8, bytes, "request")?))
    }
}

record! {
    Request { filter, any_replica, partitions: Each<Varint> }
    Filter { group, topic, exact }
    GroupLag { name, protocol_type, generation, members: Varint, coordinator: OrMinusOne, isolation, topics }
    TopicLag { name, partitions }
    PartitionLag { index: Varint, committed, status, window_commits, measured }
    MeasuredLag { end, lag, age_ms, behind_ms: OrMinusOne, by_end }
    LagByEnd { last_stable, high_watermark_lag, last_stable_lag }

    GroupLag as GroupLagV1 {
        name, protocol_type, generation, members: Varint, coordinator: OrMinusOne, topics: Each<TopicLagV1>;
        without isolation = Isolation::ReadUncommitted
    }
    TopicLag as TopicLagV1 { name, partitions: Each<PartitionLagV1> }
    PartitionLag as PartitionLagV1 {
        index: Varint, committed, status, window_commits, measured: Optional<MeasuredLagV1>
    }
    MeasuredLag as MeasuredLagV1 { end, lag, age_ms, behind_ms: OrMinusOne; without by_end = None }
}

/// As Kafka's number for the isolation level.
impl Value for Isolation {
    fn write(&self, w: &mut Writer) {
        w.u8(match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        });
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        match r.u8(what)? {
            0 => Ok(Self::ReadUncommitted),
            1 => Ok(Self::ReadCommitted),
            _ => Err(CodecError::Value(what)),
        }
    }
}

/// As Burrow's number, which metrics show too.
impl Value for Status {
    fn write(&self, w: &mut Writer) {
        w.u8(self.number());
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Self::of_number(r.u8(what)?).ok_or(CodecError::Value(what))
    }
}

/// As its expression.
impl Value for NameFilter {
    fn write(&self, w: &mut Writer) {
        w.string(self.expression());
    }

    fn read(r: &mut Reader<'_>, what: &'static str) -> Result<Self, CodecError> {
        Self::new(&r.string(what)?).map_err(|_| CodecError::Value(what))
    }
}

/// Partitions of `__consumer_offsets`, each with its groups.
type Answer = Vec<(i32, Vec<GroupLag>)>;
type AnswerV1 = Each<(Varint, Each<GroupLagV1>)>;
type AnswerV2 = Each<(Varint, Plain)>;

/// The groups of partitions of `__consumer_offsets` that a node has answered for.
pub(super) fn encode_answer(version: Version, partitions: &Answer) -> Bytes {
    let mut w = Writer::default();
    w.u8(version as u8);
    match version {
        Version::ByHighWatermark => AnswerV1::write(partitions, &mut w),
        Version::Newest => AnswerV2::write(partitions, &mut w),
    }
    w.finish()
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, CodecError> {
    let version = Version::of(bytes)?;
    let mut r = Reader::of_version(bytes, version as u8)?;
    let partitions = match version {
        Version::ByHighWatermark => AnswerV1::read(&mut r, "partitions")?,
        Version::Newest => AnswerV2::read(&mut r, "partitions")?,
    };
    r.end()?;
    Ok(partitions)
}

#[cfg(test)]
impl GroupLag {
    /// A group with one topic; `(committed, lag)` by partition.
    pub(crate) fn example(name: &str, partitions: &[(i64, Option<i64>)]) -> Self {
        let partition = |(index, (committed, lag)): (i32, &(i64, Option<i64>))| {
            let end =
                |lag| LagByEnd { last_stable: committed + lag, high_watermark_lag: lag + 7, last_stable_lag: lag };
            let measured = |lag| MeasuredLag {
                end: committed + lag + 7,
                lag,
                age_ms: 250,
                behind_ms: Some(lag * 1_500),
                by_end: Some(end(lag)),
            };
            let status = if lag.is_some_and(|lag| lag > 100) { Status::Stop } else { Status::Ok };
            PartitionLag { index, committed: *committed, status, window_commits: 3, measured: lag.map(measured) }
        };
        Self {
            name: name.to_owned(),
            protocol_type: "consumer".to_owned(),
            generation: 4,
            members: 2,
            coordinator: Some(NodeId(3)),
            isolation: Isolation::ReadCommitted,
            topics: vec![TopicLag { name: "t".to_owned(), partitions: (0..).zip(partitions).map(partition).collect() }],
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_told_where_all_is_known() {
        let known = GroupLag::example("g", &[(100, Some(900)), (5, Some(0))]);
        assert_eq!((known.lag(), known.unknown(), known.behind_ms()), (Some(900), 0, Some(1_350_000)));
        assert_eq!((known.topics[0].committed(), known.status(), known.age_ms()), (105, Status::Err, 250));
        let partly = GroupLag::example("g", &[(100, Some(900)), (5, None)]);
        assert_eq!((partly.lag(), partly.unknown(), partly.topics[0].lag()), (None, 1, None));
        assert_eq!((known.lag_by_end(), partly.lag_by_end()), ([Some(914), Some(900)], [None, None]));
        assert_eq!(GroupLag::example("g", &[]).lag(), Some(0));
    }

    #[test]
    fn answers_come_back_and_cut_bytes_are_refused() {
        let mut unknown = GroupLag::example("h", &[(7, Some(0)), (i64::MAX, None)]);
        unknown.coordinator = None;
        unknown.topics[0].partitions[0].measured.as_mut().unwrap().behind_ms = None;
        let answer = vec![(0, vec![GroupLag::example("g", &[(100, Some(900))]), unknown]), (49, Vec::new())];
        let bytes = encode_answer(Version::Newest, &answer);
        assert!((0..bytes.len()).all(|cut| decode_answer(&bytes[..cut]).is_err()));
        assert_eq!(decode_answer(&bytes).unwrap(), answer);
        assert_eq!(decode_answer(&[3]), Err(CodecError::Version(3)));
    }

    #[test]
    fn by_version_1_a_group_has_its_lag_and_no_other() {
        let answer = vec![(0, vec![GroupLag::example("g", &[(100, Some(900)), (7, None)])])];
        let bytes = encode_answer(Version::ByHighWatermark, &answer);
        assert!((0..bytes.len()).all(|cut| decode_answer(&bytes[..cut]).is_err()));
        let read = decode_answer(&bytes).unwrap();
        let mut expected = answer;
        expected[0].1[0].isolation = Isolation::ReadUncommitted;
        expected[0].1[0].topics[0].partitions[0].measured.as_mut().unwrap().by_end = None;
        assert_eq!(read, expected);
        let request = Request { filter: Filter::one("g"), any_replica: false, partitions: vec![0] };
        for version in [Version::ByHighWatermark, Version::Newest] {
            assert_eq!(Request::decode(&request.encode(version)).unwrap().0, version);
        }
        assert_eq!(request.encode(Version::ByHighWatermark)[..], b"\x01\0\0\x01\x01g\0\x01\0"[..]);
    }

    #[test]
    fn requests_come_back_and_cut_bytes_are_refused() {
        let names = |expression| Some(NameFilter::new(expression).unwrap());
        let filter = Filter { group: names("g.*"), topic: names(".*orders"), exact: Some("g1".to_owned()) };
        let bytes = Request { filter, any_replica: true, partitions: vec![0, 49] }.encode(Version::Newest);
        assert!((0..bytes.len()).all(|cut| Request::decode(&bytes[..cut]).is_err()));
        let (_, read) = Request::decode(&bytes).unwrap();
        assert!(read.any_replica && read.partitions == [0, 49] && read.filter.is_by_topic());
        assert!(read.filter.wants_group("g1") && !read.filter.wants_group("g2"));
        assert!(read.filter.wants_topic("my.orders") && !read.filter.wants_topic("orders-2"));
    }
}
