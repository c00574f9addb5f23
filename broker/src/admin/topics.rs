//! Metrics of topics: sums over the partitions that this node leads, and the selection of the topics and partitions
//! with their own series on the page `/metrics`, so that it stays small however many there are.
//!
//! All of them are on their own pages: `/metrics/partitions` and `/metrics/topics`. May not know: HTTP.

use super::families::{Family, label};
use super::partitions::{self, ShownPartition, count, whole};
use super::table::{Column, Table};
use crate::config::{MetricsConfig, NameFilter};
use crate::handlers::context::Domain;
use crate::metadata::{MetadataImage, Topic};
use crate::metrics::OTHER_TOPICS;
use crate::partition::Leaders;

/// Sums over partitions: of one topic, of several, of all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// All partitions in the metadata.
    partitions: usize,
    /// Partitions that this node leads. All fields below but `offline` are about these.
    led: usize,
    /// Partitions of which this node knows no leader.
    offline: usize,
    under_replicated: usize,
    under_min_isr: usize,
    not_preferred: usize,
    /// High watermarks.
    written: i64,
    /// From log start to high watermark.
    records: i64,
    log_bytes: u64,
}

/// The families with a sample per topic.
const COLUMNS: &[Column<Totals>] = &[
    Column {
        name: "kafka_topic_partitions",
        help: "Number of partitions of a topic",
        value: |totals| Some(count(totals.partitions)),
    },
    Column {
        name: "ottla_topic_partitions_led",
        help: "Partitions of a topic that this node leads",
        value: |totals| Some(count(totals.led)),
    },
    Column {
        name: "ottla_topic_partitions_offline",
        help: "Partitions of a topic of which this node knows no leader",
        value: |totals| Some(count(totals.offline)),
    },
    Column {
        name: "ottla_topic_partitions_under_replicated",
        help: "Partitions of a topic that this node leads and of which a replica is not in sync",
        value: |totals| Some(count(totals.under_replicated)),
    },
    Column {
        name: "ottla_topic_partitions_under_min_isr",
        help: "Partitions of a topic that this node leads with fewer replicas in sync than min.insync.replicas",
        value: |totals| Some(count(totals.under_min_isr)),
    },
    Column {
        name: "ottla_topic_high_watermarks",
        help: "Sum of the high watermarks of a topic's partitions that this node leads: records ever written",
        value: |totals| Some(totals.written),
    },
    Column {
        name: "ottla_topic_records",
        help: "Offsets from log start to high watermark of a topic's partitions that this node leads",
        value: |totals| Some(totals.records),
    },
    Column {
        name: "ottla_topic_log_bytes",
        help: "Bytes of batches from log start of a topic's partitions that this node leads",
        value: |totals| Some(whole(totals.log_bytes)),
    },
];

impl Totals {
    fn add(&mut self, topic: &Topic, partition: &ShownPartition) {
        if partition.leader.is_none() {
            self.offline += 1;
            return;
        }
        self.led += 1;
        self.under_replicated += usize::from(partition.is_under_replicated());
        let in_sync_min = usize::try_from(topic.config.min_insync_replicas).unwrap_or(0);
        self.under_min_isr += usize::from(partition.in_sync < in_sync_min);
        self.not_preferred += usize::from(!partition.is_led_by_preferred);
        if let Some(log) = &partition.log {
            self.written += log.marks.high_watermark.0;
            self.records += log.marks.high_watermark.0 - log.marks.log_start.0;
            self.log_bytes += log.bytes;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.partitions += other.partitions;
        self.led += other.led;
        self.offline += other.offline;
        self.under_replicated += other.under_replicated;
        self.under_min_isr += other.under_min_isr;
        self.not_preferred += other.not_preferred;
        self.written += other.written;
        self.records += other.records;
        self.log_bytes += other.log_bytes;
    }
}

/// The topics with their own series on the page `/metrics`, selected one by one in the order of names.
struct Selection<'a> {
    config: &'a MetricsConfig,
    /// True if the cluster has few enough partitions to export them all.
    shows_partitions: bool,
    /// How many more topics that are not included by name may be exported.
    places_left: usize,
    partitions_omitted: usize,
    topics_omitted: usize,
}

impl<'a> Selection<'a> {
    fn of(config: &'a MetricsConfig, image: &MetadataImage) -> Self {
        let (mut partitions, mut included) = (0, 0);
        for topic in image.topics.values() {
            let name: &str = &topic.name;
            partitions += if config.exclude.matches(name) { 0 } else { topic.partitions.len() };
            included += usize::from(config.include.matches(name));
        }
        Self {
            config,
            shows_partitions: u64::try_from(partitions).is_ok_and(|partitions| partitions <= config.partitions_max),
            places_left: config.topics_max.saturating_sub(included),
            partitions_omitted: 0,
            topics_omitted: 0,
        }
    }

    /// True if the topic has its own series. Called once per topic.
    fn takes_topic(&mut self, topic: &Topic) -> bool {
        let is_shown = self.config.include.matches(&topic.name) || self.places_left > 0;
        if !is_shown {
            self.topics_omitted += 1;
        } else if !self.config.include.matches(&topic.name) {
            self.places_left -= 1;
        }
        is_shown
    }

    /// True if each of the topic's partitions has its own series. Called once per topic.
    fn takes_partitions(&mut self, topic: &Topic) -> bool {
        let name: &str = &topic.name;
        let is_shown =
            !self.config.exclude.matches(name) && (self.shows_partitions || self.config.include.matches(name));
        self.partitions_omitted += if is_shown { 0 } else { topic.partitions.len() };
        is_shown
    }
}

/// Topics and partitions on the page `/metrics`: all of them in sums, the selected ones one by one.
pub(super) fn overview(domain: &Domain, image: &MetadataImage, page: &mut String) {
    let mut selection = Selection::of(&image.config.metrics, image);
    let (mut by_topic, mut by_partition) = (Table::new(COLUMNS), Table::new(partitions::COLUMNS));
    let (mut all, mut others) = (Totals::default(), Totals::default());
    let mut leaders = domain.partitions.leaders();
    for topic in image.topics.values() {
        let shown_in = selection.takes_partitions(topic).then_some(&mut by_partition);
        let totals = visit(domain, &mut leaders, topic, shown_in);
        all.merge(&totals);
        match selection.takes_topic(topic) {
            true => by_topic.add(label("topic", &topic.name), totals),
            false => others.merge(&totals),
        }
    }
    if selection.topics_omitted > 0 {
        by_topic.add(label("topic", OTHER_TOPICS), others);
    }
    sums(image, &all, &selection, page);
    by_topic.finish(page);
    by_partition.finish(page);
}

/// All topics whose names match, as samples.
pub(super) fn named(domain: &Domain, names: Option<&NameFilter>) -> Table<Totals> {
    let mut table = Table::new(COLUMNS);
    each_named(domain, names, |leaders, topic| {
        table.add(label("topic", &topic.name), visit(domain, leaders, topic, None));
    });
    table
}

/// All partitions of the topics whose names match, as samples.
pub(super) fn partitions_of(domain: &Domain, names: Option<&NameFilter>) -> Table<ShownPartition> {
    let mut table = Table::new(partitions::COLUMNS);
    each_named(domain, names, |leaders, topic| {
        visit(domain, leaders, topic, Some(&mut table));
    });
    table
}

fn each_named(domain: &Domain, names: Option<&NameFilter>, mut show: impl FnMut(&mut Leaders, &Topic)) {
    let image = domain.metadata.image();
    let mut leaders = domain.partitions.leaders();
    for topic in image.topics.values().filter(|topic| names.is_none_or(|names| names.matches(&topic.name))) {
        show(&mut leaders, topic);
    }
}

/// Sums up a topic, and adds its partitions to a table if there is one.
fn visit(
    domain: &Domain,
    leaders: &mut Leaders,
    topic: &Topic,
    mut table: Option<&mut Table<ShownPartition>>,
) -> Totals {
    let mut totals = Totals { partitions: topic.partitions.len(), ..Totals::default() };
    let topic_label = label("topic", &topic.name);
    for index in 0..topic.partition_count() {
        let Some(partition) = ShownPartition::of(domain, topic, index, leaders.of(topic, index)) else { continue };
        totals.add(topic, &partition);
        if let Some(table) = &mut table {
            table.add(format!("partition=\"{index}\",{topic_label}"), partition);
        }
    }
    totals
}

/// The cluster's numbers and this node's sums, without labels: always exported, however many topics there are.
fn sums(image: &MetadataImage, all: &Totals, selection: &Selection<'_>, page: &mut String) {
    for (name, help, value) in [
        ("ottla_topics", "Topics of the cluster", image.topics.len()),
        ("ottla_partitions", "Partitions of the cluster", all.partitions),
        ("ottla_partitions_led", "Partitions that this node leads", all.led),
        ("ottla_partitions_offline", "Partitions of which this node knows no leader", all.offline),
        (
            "ottla_partitions_under_replicated",
            "Partitions that this node leads and of which a replica is not in sync",
            all.under_replicated,
        ),
        (
            "ottla_partitions_under_min_isr",
            "Partitions that this node leads with fewer replicas in sync than min.insync.replicas",
            all.under_min_isr,
        ),
        (
            "ottla_partitions_leader_not_preferred",
            "Partitions that this node leads although another one is their preferred leader",
            all.not_preferred,
        ),
        (
            "ottla_metrics_topics_omitted",
            "Topics of the cluster that are not on this page one by one, but in the sums of the topic (other)",
            selection.topics_omitted,
        ),
        (
            "ottla_metrics_partitions_omitted",
            "Partitions of the cluster that are not on this page one by one, but in the sums of their topics",
            selection.partitions_omitted,
        ),
    ] {
        let mut family = Family::gauge(name, help);
        family.add("", value);
        family.finish(page);
    }
}
