//! Raw values with their sources: each checked against the table, kept beside the typed configuration.
//!
//! May not know: files, environment, flags; what a value means.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::setting::split_list;
use super::table::setting;

/// The source of a value. The order is the precedence: later overrides earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The table.
    Default,
    /// The file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
    /// Set for all nodes while they run.
    DynamicDefault,
    /// Set for this node while it runs.
    DynamicNode,
}

impl Source {
    /// DescribeConfigs' number for it.
    #[must_use]
    pub fn code(self) -> i8 {
        match self {
            Self::DynamicNode => 2,
            Self::DynamicDefault => 3,
            Self::File | Self::Environment | Self::Flag => 4,
            Self::Default => 5,
        }
    }
}

/// The given values, by setting; each checked. A setting may have several values, from several sources.
#[derive(Debug, Clone, Default)]
pub struct Values(BTreeMap<&'static str, BTreeMap<Source, String>>);

impl Values {
    /// Adds a value that was checked.
    pub(super) fn set(&mut self, name: &'static str, source: Source, value: String) {
        self.0.entry(name).or_default().insert(source, value);
    }

    /// The value in effect for `name` and its source; `None` when it is unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<(&str, Source)> {
        self.all(name).into_iter().next()
    }

    /// All values of `name`, the one in effect first, the default last. All static sources count as one.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<(&str, Source)> {
        let mut values: Vec<_> = self
            .0
            .get(name)
            .into_iter()
            .flat_map(|given| given.iter().rev().map(|(source, value)| (value.as_str(), *source)))
            .collect();
        let mut codes = Vec::new();
        values.retain(|(_, source)| {
            let fresh = !codes.contains(&source.code());
            codes.push(source.code());
            fresh
        });
        values.extend(setting(name).and_then(|setting| setting.default).map(|default| (default, Source::Default)));
        values
    }

    /// True if a value was given explicitly.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn string(&self, name: &str) -> Option<String> {
        self.get(name).map(|(value, _)| value.to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.string(name).unwrap_or_default()
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        split_list(self.get(name).map_or("", |(value, _)| value)).map(str::to_owned).collect()
    }

    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        self.list(name).into_iter().map(PathBuf::from).collect()
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        self.get(name).is_some_and(|(value, _)| value == "true")
    }

    /// A number; values were checked, so a missing one is a bug of the table, which a test finds.
    pub(super) fn long(&self, name: &str) -> i64 {
        let value = self.get(name).and_then(|(value, _)| value.parse().ok());
        debug_assert!(value.is_some(), "{name} is not a number of the table");
        value.unwrap_or_default()
    }

    pub(super) fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).unwrap_or(i32::MAX)
    }

    pub(super) fn short(&self, name: &str) -> i16 {
        i16::try_from(self.long(name)).unwrap_or(i16::MAX)
    }

    /// A number that is never negative: a value below zero counts as no limit.
    pub(super) fn count(&self, name: &str) -> usize {
        usize::try_from(self.long(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn double(&self, name: &str) -> f64 {
        let value = self.get(name).and_then(|(value, _)| value.parse().ok());
        debug_assert!(value.is_some(), "{name} is not a number of the table");
        value.unwrap_or_default()
    }

    /// As [`Values::count`].
    pub(super) fn amount(&self, name: &str) -> u64 {
        u64::try_from(self.long(name)).unwrap_or(u64::MAX)
    }
}
