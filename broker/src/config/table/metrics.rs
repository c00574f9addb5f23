//! The table, metrics part: the extent of the page `/metrics`.
//!
//! May not know: values.

use crate::config::setting::{Range, Setting, at_least, int, long, text};

const PAGE: &str = "metrics";

pub(super) const METRICS: &[Setting] = &[
    long(
        "ottla.metrics.partitions.max",
        "5000",
        at_least(0),
        "In a cluster of more partitions `/metrics` leaves out the series of single partitions, but for topics that `ottla.metrics.topics.include` names; `/metrics/partitions` has them. Partitions of topics that `ottla.metrics.topics.exclude` names are not counted.",
    )
    .dynamic()
    .acts(PAGE),
    int(
        "ottla.metrics.topics.max",
        "2000",
        at_least(0),
        "Topics that have series of their own on `/metrics`, those first that `ottla.metrics.topics.include` names; the others are summed under the topic `(other)`, and `/metrics/topics` has them one by one.",
    )
    .dynamic()
    .acts(PAGE),
    text(
        "ottla.metrics.topics.include",
        "",
        Range::Expression,
        "Topics whose names this regular expression matches whole are always shown on `/metrics` with all their partitions.",
    )
    .dynamic()
    .acts(PAGE),
    text(
        "ottla.metrics.topics.exclude",
        "",
        Range::Expression,
        "Topics whose names this regular expression matches whole are shown on `/metrics` without their single partitions; goes before `ottla.metrics.topics.include`.",
    )
    .dynamic()
    .acts(PAGE),
];
