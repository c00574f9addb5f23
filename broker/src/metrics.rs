//! The node's counters and gauges, in one prometheus registry.
//!
//! Hot paths hold their counters: no label is looked up per record. Labels are bounded: APIs and error codes by the
//! protocol, topics by `ottla.metrics.topics.max`. Values that can be read from images at scrape time (offsets, lag,
//! log sizes) are not here but in `admin::exposition`. May not know: the scraper.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use ottla_protocol::error::ErrorCode;
use ottla_protocol::versions::{ApiKey, SUPPORTED};

use crate::config::MetricsConfig;

/// The label of the sum of all topics without their own series; not a valid topic name.
pub const OTHER_TOPICS: &str = "(other)";

/// From a tenth of a millisecond to ten seconds: a commit takes 0.1 ms, a long poll half a second.
const SECONDS_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The counters of one API, held by its connections.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    seconds: Histogram,
    succeeded: IntCounter,
}

/// The counters of one topic.
#[derive(Debug, Clone)]
pub struct TopicMetrics {
    /// Bytes of batches appended.
    pub bytes_in: IntCounter,
    /// Records appended.
    pub records_in: IntCounter,
    /// Bytes of batches returned to consumers.
    pub bytes_out: IntCounter,
    /// Batches refused.
    pub refused: IntCounter,
}

/// All metrics of the node's registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    apis: BTreeMap<ApiKey, ApiMetrics>,
    requests: IntCounterVec,
    /// Clients connected now.
    pub connections: IntGauge,
    /// Clients that connected.
    pub connections_accepted: IntCounter,
    connections_refused: IntCounterVec,
    connections_closed: IntCounterVec,
    /// Handlers that panicked.
    pub panics: IntCounter,
    /// Bytes received in requests.
    pub request_bytes: IntCounter,
    /// Consumers whose position was out of range: their reset policy decides what they skip or read again.
    pub offsets_out_of_range: IntCounter,
    /// Incremental fetch sessions in the cache.
    pub fetch_sessions: IntGauge,
    bytes_in: IntCounterVec,
    records_in: IntCounterVec,
    bytes_out: IntCounterVec,
    refused: IntCounterVec,
    topics: RwLock<CountedTopics>,
}

/// The topics with their own counters. A topic keeps them while it exists: a counter that moved to another label would
/// look like traffic there.
#[derive(Debug)]
struct CountedTopics {
    limits: MetricsConfig,
    by_name: HashMap<Arc<str>, Arc<TopicMetrics>>,
    /// The counters of all other topics together.
    other: Option<Arc<TopicMetrics>>,
}

impl CountedTopics {
    /// True if `name` may have its own counters.
    fn takes(&self, name: &str) -> bool {
        self.by_name.len() < self.limits.topics_max || self.limits.include.matches(name)
    }
}

impl Metrics {
    /// Registers all metrics. The names are constants of this file: a failure is a bug that any test finds.
    #[must_use]
    pub fn new(limits: &MetricsConfig) -> Arc<Self> {
        let registry = Registry::new();
        let seconds = registered(
            &registry,
            HistogramVec::new(
                HistogramOpts::new("ottla_request_seconds", "Time from a request's start to its answer, by API")
                    .buckets(SECONDS_BUCKETS.to_vec()),
                &["api"],
            ),
        );
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help));
        let requests = counters("ottla_requests_total", "Requests answered, by API and error", &["api", "error"]);
        let apis = SUPPORTED
            .iter()
            .map(|row| {
                let metrics = ApiMetrics {
                    seconds: seconds.with_label_values(&[row.name]),
                    succeeded: requests.with_label_values(&[row.name, ErrorCode::None.name()]),
                };
                (row.key, metrics)
            })
            .collect();
        Arc::new(Self {
            apis,
            requests,
            connections: gauge("ottla_connections", "Clients connected now"),
            connections_accepted: counter("ottla_connections_accepted_total", "Clients that connected"),
            connections_refused: counters(
                "ottla_connections_refused_total",
                "Connections that the broker closed because of a limit or of what came over them, by reason",
                &["reason"],
            ),
            connections_closed: counters(
                "ottla_connections_closed_total",
                "Connections that ended in an ordinary way, by reason",
                &["reason"],
            ),
            panics: counter("ottla_request_panics_total", "Requests that failed by a mistake of the broker"),
            request_bytes: counter("ottla_request_bytes_total", "Bytes received in requests"),
            offsets_out_of_range: counter(
                "ottla_fetch_offset_out_of_range_total",
                "Fetches at an offset that does not exist (any more): the consumer resets its position",
            ),
            fetch_sessions: gauge("ottla_fetch_sessions", "Incremental fetch sessions kept"),
            bytes_in: counters("ottla_topic_bytes_in_total", "Bytes of record batches appended", &["topic"]),
            records_in: counters("ottla_topic_records_in_total", "Records appended", &["topic"]),
            bytes_out: counters("ottla_topic_bytes_out_total", "Bytes of record batches fetched", &["topic"]),
            refused: counters("ottla_topic_batches_refused_total", "Record batches refused", &["topic"]),
            topics: RwLock::new(CountedTopics { limits: limits.clone(), by_name: HashMap::new(), other: None }),
            registry,
        })
    }

    /// The registry, for the scrape and for collectors of other layers.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts an answered request.
    pub fn answered(&self, api: ApiKey, error: ErrorCode, seconds: f64) {
        let Some(metrics) = self.apis.get(&api) else { return };
        metrics.seconds.observe(seconds);
        if error == ErrorCode::None {
            metrics.succeeded.inc();
        } else {
            self.requests.with_label_values(&[api.name(), error.name()]).inc();
        }
    }

    /// Counts a refused connection: at once, or because of its bytes.
    pub fn refused(&self, reason: &str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Counts a connection that ended in an ordinary way.
    pub fn closed(&self, reason: &str) {
        self.connections_closed.with_label_values(&[reason]).inc();
    }

    /// The counters of a topic that exists.
    #[must_use]
    pub fn topic(&self, name: &Arc<str>) -> Arc<TopicMetrics> {
        {
            let topics = self.topics.read();
            let other = || topics.other.as_ref().filter(|_| !topics.takes(name));
            if let Some(metrics) = topics.by_name.get(name).or_else(other) {
                return metrics.clone();
            }
        }
        let mut topics = self.topics.write();
        if topics.takes(name) {
            topics.by_name.entry(name.clone()).or_insert_with(|| self.counted_as(name)).clone()
        } else {
            topics.other.get_or_insert_with(|| self.counted_as(OTHER_TOPICS)).clone()
        }
    }

    fn counted_as(&self, label: &str) -> Arc<TopicMetrics> {
        Arc::new(TopicMetrics {
            bytes_in: self.bytes_in.with_label_values(&[label]),
            records_in: self.records_in.with_label_values(&[label]),
            bytes_out: self.bytes_out.with_label_values(&[label]),
            refused: self.refused.with_label_values(&[label]),
        })
    }

    /// Applies the current limits, for topics created later, and drops the counters of deleted topics.
    pub fn keep_topics(&self, limits: &MetricsConfig, exists: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self.topics.read().by_name.keys().filter(|name| !exists(name)).cloned().collect();
        let mut topics = self.topics.write();
        topics.limits = limits.clone();
        for name in gone {
            topics.by_name.remove(&name);
            for family in [&self.bytes_in, &self.records_in, &self.bytes_out, &self.refused] {
                // An error means that the label does not exist, which is the goal.
                let _ = family.remove_label_values(&[&name]);
            }
        }
    }
}

/// Registers a collector. Fails only for a name that is malformed or used twice, both constants of this file.
#[allow(clippy::expect_used)]
fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("a metric's name or labels are malformed");
    registry.register(Box::new(collector.clone())).expect("a metric is registered twice");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, NameFilter};

    fn metrics(topics_max: usize, include: &str) -> Arc<Metrics> {
        Metrics::new(&limits(topics_max, include))
    }

    fn limits(topics_max: usize, include: &str) -> MetricsConfig {
        let include = NameFilter::new(include).unwrap();
        MetricsConfig { topics_max, include, ..Config::default().metrics }
    }

    fn series(metrics: &Metrics) -> usize {
        metrics.bytes_in.collect()[0].get_metric().len()
    }

    #[test]
    fn topics_are_bounded_and_leave_with_their_topic() {
        let metrics = metrics(10, "");
        for number in 0..15 {
            metrics.topic(&format!("t{number}").into()).bytes_in.inc_by(1);
        }
        assert_eq!(series(&metrics), 11);
        assert_eq!(metrics.bytes_in.with_label_values(&[OTHER_TOPICS]).get(), 5);
        metrics.keep_topics(&limits(10, ""), |name| name == "t7");
        assert_eq!(series(&metrics), 2);
        assert_eq!(metrics.topic(&"t7".into()).bytes_in.get(), 1);
    }

    #[test]
    fn included_topics_have_counters_of_their_own_beyond_the_limit() {
        let metrics = metrics(1, "big-.*");
        for name in ["a", "b", "big-1", "big-2", "c"] {
            metrics.topic(&name.into()).records_in.inc();
        }
        assert_eq!(metrics.records_in.with_label_values(&["big-2"]).get(), 1);
        assert_eq!(metrics.records_in.with_label_values(&[OTHER_TOPICS]).get(), 2);
        // A topic that has counters keeps them under a limit that is lower.
        metrics.keep_topics(&limits(0, ""), |_| true);
        for name in ["a", "big-1", "d"] {
            metrics.topic(&name.into()).records_in.inc();
        }
        assert_eq!(metrics.records_in.with_label_values(&["a"]).get(), 2);
        assert_eq!(metrics.records_in.with_label_values(&[OTHER_TOPICS]).get(), 3);
    }

    #[test]
    fn requests_are_counted_by_api_and_error() {
        let metrics = metrics(10, "");
        metrics.answered(ApiKey::Fetch, ErrorCode::None, 0.001);
        metrics.answered(ApiKey::Fetch, ErrorCode::OffsetOutOfRange, 0.001);
        assert_eq!(metrics.requests.with_label_values(&["Fetch", "OFFSET_OUT_OF_RANGE"]).get(), 1);
        assert_eq!(metrics.requests.with_label_values(&["Fetch", "NONE"]).get(), 1);
    }
}
