//! Text of metric families whose values are read from images at scrape time: written directly, without an object per
//! sample, because there are several for each of ten thousand partitions. May not know: what the values mean.

use std::fmt::{Display, Write};

/// A family while it is filled: all its samples must be together under one head.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    text: String,
}

impl Family {
    /// An empty gauge.
    pub(super) fn gauge(name: &'static str, help: &str) -> Self {
        Self::of("gauge", name, help)
    }

    /// An empty counter.
    pub(super) fn counter(name: &'static str, help: &str) -> Self {
        Self::of("counter", name, help)
    }

    /// An empty histogram.
    pub(super) fn histogram(name: &'static str, help: &str) -> Self {
        Self::of("histogram", name, help)
    }

    /// An empty family whose name looks like one of another type: kafka_exporter ends names of gauges in `_sum`, which
    /// linters and OpenMetrics reserve for histograms and summaries, and dashboards use these names.
    pub(super) fn untyped(name: &'static str, help: &str) -> Self {
        Self::of("untyped", name, help)
    }

    fn of(kind: &str, name: &'static str, help: &str) -> Self {
        Self { name, text: head(kind, name, help) }
    }

    /// Adds a sample. `labels` is `name="value",...` as [`label`] and [`labels`] make it.
    pub(super) fn add(&mut self, labels: &str, value: impl Display) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}{open}{labels}{close} {value}", self.name);
    }

    /// Adds a sample of a histogram: counts by bucket, one more than there are bounds. `labels` is not empty.
    pub(super) fn add_buckets(&mut self, labels: &str, bounds: &[f64], counts: &[u64], sum: f64) {
        let name = self.name;
        let mut count = 0;
        for (number, in_bucket) in counts.iter().enumerate() {
            count += in_bucket;
            let bound = bounds.get(number).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(self.text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(self.text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }

    /// Appends the family to the page.
    pub(super) fn finish(self, page: &mut String) {
        page.push_str(&self.text);
    }
}

/// The two lines above the samples of a family.
pub(super) fn head(kind: &str, name: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

/// One label; the value is escaped, since group and topic names come from clients.
pub(super) fn label(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let mut family = Family::histogram("h", "H");
        family.add_buckets("a=\"b\"", &[0.5, 1.0], &[2, 0, 1], 7.25);
        let mut page = String::new();
        family.finish(&mut page);
        let expected = "# HELP h H\n# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.5\"} 2\nh_bucket{a=\"b\",le=\"1\"} 2\n\
                        h_bucket{a=\"b\",le=\"+Inf\"} 3\nh_sum{a=\"b\"} 7.25\nh_count{a=\"b\"} 3\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn samples_stand_under_one_head_and_values_are_escaped() {
        let mut family = Family::gauge("kafka_brokers", "Nodes");
        family.add("", 3);
        family.add(&label("group", "a\"b\\\n"), 4);
        let mut page = String::new();
        family.finish(&mut page);
        let expected = "# HELP kafka_brokers Nodes\n# TYPE kafka_brokers gauge\nkafka_brokers 3\n\
                        kafka_brokers{group=\"a\\\"b\\\\\\n\"} 4\n";
        assert_eq!(page, expected);
    }
}
