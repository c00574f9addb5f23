//! The metric families of consumer groups, under kafka_exporter's names where it has them.
//!
//! One entry point, [`write`], for the default page, which leaves families out above a limit, and for
//! `/metrics/groups`. May not know: where the numbers come from.

use super::families::{Family, label};
use crate::coordinator::lag::report::{GroupLag, Report};

/// The families with a sample per partition.
struct PartitionFamilies {
    current: Family,
    lag: Family,
    high_watermark_lag: Family,
    last_stable_lag: Family,
    seconds: Family,
    status: Family,
}

/// The families with a sample per group and topic.
struct TopicFamilies {
    current_sum: Family,
    lag_sum: Family,
}

/// The families with a sample per group.
struct GroupFamilies {
    members: Family,
    lag: Family,
    seconds_max: Family,
    age: Family,
    unknown: Family,
    status: Family,
}

/// Writes the families of all groups of the report. Above `series_max` partitions of groups the families with a sample
/// per partition are left out, above as many topics of groups also the sums by topic; one family has the number of
/// samples left out.
pub(super) fn write(report: &Report, series_max: usize, page: &mut String) {
    let (mut of_partition, mut of_topic, mut of_group) =
        (PartitionFamilies::new(), TopicFamilies::new(), GroupFamilies::new());
    let topics: usize = report.groups.iter().map(|group| group.topics.len()).sum();
    let partitions: usize = report.groups.iter().map(|group| group.partitions().count()).sum();
    let (with_topics, with_partitions) = (topics <= series_max, partitions <= series_max);
    for group in &report.groups {
        of_group.add(group);
        if with_topics {
            of_topic.add(group);
        }
        if with_partitions {
            of_partition.add(group);
        }
    }
    let mut omitted = Family::gauge(
        "ottla_consumergroup_omitted_series",
        "Partitions and topics of groups that are left out of this page; /metrics/groups has them",
    );
    let left_out = |count: usize, is_shown: bool| if is_shown { 0 } else { count };
    omitted.add("", left_out(partitions, with_partitions) + left_out(topics, with_topics));
    let mut missing = Family::gauge(
        "ottla_consumergroup_missing_offsets_partitions",
        "Partitions of __consumer_offsets for whose groups no replica has answered",
    );
    missing.add("", report.missing.len());
    let PartitionFamilies { current, lag, high_watermark_lag, last_stable_lag, seconds, status } = of_partition;
    let TopicFamilies { current_sum, lag_sum } = of_topic;
    for family in [current, lag, high_watermark_lag, last_stable_lag, seconds, status, current_sum, lag_sum] {
        family.finish(page);
    }
    let GroupFamilies { members, lag, seconds_max, age, unknown, status } = of_group;
    for family in [members, lag, seconds_max, age, unknown, status, omitted, missing] {
        family.finish(page);
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

impl GroupFamilies {
    fn new() -> Self {
        Self {
            members: Family::gauge("kafka_consumergroup_members", "Members of a group"),
            lag: Family::gauge("ottla_consumergroup_lag_records", "Lag of a group over all topics"),
            seconds_max: Family::gauge(
                "ottla_consumergroup_lag_seconds_max",
                "Age of the oldest record that the group has not committed",
            ),
            age: Family::gauge(
                "ottla_consumergroup_lag_age_seconds",
                "Age of the oldest knowledge about a partition of the group",
            ),
            unknown: Family::gauge(
                "ottla_consumergroup_lag_unknown_partitions",
                "Partitions of the group whose leaders have not told their ends yet",
            ),
            status: Family::gauge(
                "ottla_consumergroup_status",
                "Status by Burrow's rules, of the worst partition: 1 OK, 2 WARN, 3 ERR",
            ),
        }
    }

    fn add(&mut self, group: &GroupLag) {
        let name = label("consumergroup", &group.name);
        self.members.add(&name, group.members);
        self.age.add(&name, seconds_of(group.age_ms()));
        self.status.add(&name, group.status().number());
        // A sum of some of the partitions would be mistaken for that of all.
        self.unknown.add(&name, group.unknown());
        if let Some(lag) = group.lag() {
            self.lag.add(&name, lag);
        }
        if let Some(behind_ms) = group.behind_ms() {
            self.seconds_max.add(&name, seconds_of(behind_ms));
        }
    }
}

impl TopicFamilies {
    fn new() -> Self {
        let (current, lag) = ("kafka_consumergroup_current_offset_sum", "kafka_consumergroup_lag_sum");
        Self {
            current_sum: Family::untyped(current, "Sum of committed offsets in a topic"),
            lag_sum: Family::untyped(lag, "Sum of the lag in a topic"),
        }
    }

    fn add(&mut self, group: &GroupLag) {
        let name = label("consumergroup", &group.name);
        for topic in &group.topics {
            let labels = format!("{name},{}", label("topic", &topic.name));
            self.current_sum.add(&labels, topic.committed());
            if let Some(lag) = topic.lag() {
                self.lag_sum.add(&labels, lag);
            }
        }
    }
}

impl PartitionFamilies {
    fn new() -> Self {
        Self {
            current: Family::gauge("kafka_consumergroup_current_offset", "Committed offset of a group"),
            lag: Family::gauge(
                "kafka_consumergroup_lag",
                "Records between the committed offset and the end of what the group reads",
            ),
            high_watermark_lag: Family::gauge(
                "ottla_consumergroup_lag_high_watermark",
                "Records between the committed offset and the high watermark",
            ),
            last_stable_lag: Family::gauge(
                "ottla_consumergroup_lag_last_stable",
                "Records between the committed offset and the last stable offset",
            ),
            seconds: Family::gauge(
                "ottla_consumergroup_lag_seconds",
                "Age of the first record that the group has not committed",
            ),
            status: Family::gauge(
                "ottla_consumergroup_partition_status",
                "Status by Burrow's rules: 1 OK, 2 WARN, 4 STOP, 5 STALL, 6 REWIND",
            ),
        }
    }

    fn add(&mut self, group: &GroupLag) {
        let name = label("consumergroup", &group.name);
        for topic in &group.topics {
            let topic_label = label("topic", &topic.name);
            for partition in &topic.partitions {
                let labels = format!("{name},partition=\"{}\",{topic_label}", partition.index);
                self.current.add(&labels, partition.committed);
                let Some(measured) = partition.measured else { continue };
                self.lag.add(&labels, measured.lag);
                self.status.add(&labels, partition.status.number());
                if let Some(by_end) = measured.by_end {
                    self.high_watermark_lag.add(&labels, by_end.high_watermark_lag);
                    self.last_stable_lag.add(&labels, by_end.last_stable_lag);
                }
                if let Some(behind_ms) = measured.behind_ms {
                    self.seconds.add(&labels, seconds_of(behind_ms));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(groups: Vec<GroupLag>, series_max: usize) -> String {
        let mut page = String::new();
        write(&Report { groups, missing: vec![7] }, series_max, &mut page);
        page
    }

    #[test]
    fn sums_are_of_all_partitions_or_not_told() {
        let whole = page(vec![GroupLag::example("g", &[(100, Some(900)), (50, Some(10))])], 10);
        assert!(
            whole.contains("kafka_consumergroup_lag{consumergroup=\"g\",partition=\"1\",topic=\"t\"} 10\n"),
            "{whole}"
        );
        assert!(whole.contains("kafka_consumergroup_lag_sum{consumergroup=\"g\",topic=\"t\"} 910\n"), "{whole}");
        let labels = "{consumergroup=\"g\",partition=\"1\",topic=\"t\"}";
        assert!(whole.contains(&format!("ottla_consumergroup_lag_high_watermark{labels} 17\n")), "{whole}");
        assert!(whole.contains(&format!("ottla_consumergroup_lag_last_stable{labels} 10\n")), "{whole}");
        assert!(whole.contains("kafka_consumergroup_current_offset_sum{consumergroup=\"g\",topic=\"t\"} 150\n"));
        assert!(whole.contains("ottla_consumergroup_status{consumergroup=\"g\"} 3\n"));
        assert!(whole.contains("ottla_consumergroup_lag_age_seconds{consumergroup=\"g\"} 0.25\n"));
        assert!(whole.contains("ottla_consumergroup_lag_unknown_partitions{consumergroup=\"g\"} 0\n"));
        assert!(whole.contains("ottla_consumergroup_omitted_series 0\n"));
        assert!(whole.contains("ottla_consumergroup_missing_offsets_partitions 1\n"));
        assert!(whole.contains("# TYPE kafka_consumergroup_lag_sum untyped\n"));
        let partly = page(vec![GroupLag::example("g", &[(100, Some(900)), (50, None)])], 10);
        assert!(!partly.contains("kafka_consumergroup_lag_sum{"), "{partly}");
        assert!(partly.contains("kafka_consumergroup_current_offset_sum{consumergroup=\"g\",topic=\"t\"} 150\n"));
        assert!(partly.contains("ottla_consumergroup_lag_unknown_partitions{consumergroup=\"g\"} 1\n"));
    }

    #[test]
    fn above_the_maximum_only_sums_stay_and_then_only_groups() {
        let groups =
            || vec![GroupLag::example("g", &[(1, Some(1)), (1, Some(1))]), GroupLag::example("h", &[(1, Some(1))])];
        assert_eq!(page(groups(), 3).matches("kafka_consumergroup_lag{").count(), 3);
        let bounded = page(groups(), 2);
        assert_eq!(bounded.matches("partition=").count(), 0, "{bounded}");
        assert_eq!(bounded.matches("kafka_consumergroup_lag_sum{").count(), 2);
        assert!(bounded.contains("ottla_consumergroup_omitted_series 3\n"), "{bounded}");
        let least = page(groups(), 1);
        assert_eq!(least.matches("kafka_consumergroup_lag_sum{").count(), 0);
        assert!(least.contains("ottla_consumergroup_lag_records{consumergroup=\"g\"} 2\n"), "{least}");
        assert!(least.contains("ottla_consumergroup_omitted_series 5\n"), "{least}");
    }
}
