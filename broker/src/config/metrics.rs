//! The extent of the metrics page: the `ottla.metrics.*` settings as typed values.
//!
//! May not know: families, pages.

use super::ConfigError;
use super::name_filter::NameFilter;
use super::values::Values;

/// The limits of what has its own series on the metrics page.
#[derive(Debug, Clone)]
pub struct MetricsConfig {
    /// `ottla.metrics.partitions.max`: in a cluster of more partitions only those of `include` are shown one by one.
    pub partitions_max: u64,
    /// `ottla.metrics.topics.max`: topics that are shown one by one; the others are summed.
    pub topics_max: usize,
    /// `ottla.metrics.topics.include`: topics that are shown with all their partitions, however many there are.
    pub include: NameFilter,
    /// `ottla.metrics.topics.exclude`: topics whose partitions are not shown one by one, however few there are.
    pub exclude: NameFilter,
}

impl MetricsConfig {
    pub(super) fn build(v: &Values) -> Result<Self, ConfigError> {
        Ok(Self {
            partitions_max: v.amount("ottla.metrics.partitions.max"),
            topics_max: v.count("ottla.metrics.topics.max"),
            include: filter(v, "ottla.metrics.topics.include")?,
            exclude: filter(v, "ottla.metrics.topics.exclude")?,
        })
    }
}

fn filter(v: &Values, name: &str) -> Result<NameFilter, ConfigError> {
    let value = v.text(name);
    NameFilter::new(&value).map_err(|error| ConfigError::Invalid { name: name.into(), value, why: error.to_string() })
}
