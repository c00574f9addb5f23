//! The description of a setting: name, type, default, range, whether it is dynamic, where it acts, documentation.
//!
//! May not know: any particular setting (`table`, `topic_table`), nor where values come from (`sources`).

use std::fmt;
use std::net::IpAddr;

use super::name_filter::NameFilter;

/// The type of a setting, as DescribeConfigs names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 16 bits.
    Short = 4,
    /// 64 bits.
    Long = 5,
    /// A decimal fraction.
    Double = 6,
    /// Texts by comma.
    List = 7,
    /// A secret: never shown.
    Password = 9,
}

/// The allowed values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// All values of the type.
    Any,
    /// From one number to another, both included.
    Between(i64, i64),
    /// From one fraction to another, both included.
    Fraction(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, by comma, each once.
    SomeOf(&'static [&'static str]),
    /// `*` or partition:node pairs by comma.
    ThrottledReplicas,
    /// address:count pairs by comma.
    AddressCounts,
    /// A regular expression over names.
    Expression,
}

/// Whether a setting can be changed while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dynamic {
    /// At start only.
    No,
    /// For one node.
    PerNode,
    /// For one node or all.
    Cluster,
}

/// Where a setting acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// In this part of the node.
    In(&'static str),
    /// Nowhere; it is accepted and described, and this is the reason why it has no effect.
    Nowhere(&'static str),
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Kafka's name, or one that begins with `ottla.`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The default value; `None` is unset.
    pub default: Option<&'static str>,
    /// The allowed values.
    pub range: Range,
    /// Whether it can change while the node runs.
    pub dynamic: Dynamic,
    /// Where it acts.
    pub acts: Acts,
    /// The documentation.
    pub doc: &'static str,
}

/// The largest 32-bit number: Kafka's "no limit" in many places.
pub(super) const INT_MAX: i64 = 2_147_483_647;

/// Numbers from `from` on.
pub(super) const fn at_least(from: i64) -> Range {
    Range::Between(from, i64::MAX)
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    range: Range,
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default, range, dynamic: Dynamic::No, acts: Acts::Nowhere("not used"), doc }
}

pub(super) const fn boolean(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    setting(name, Kind::Boolean, Some(default), Range::Any, doc)
}

pub(super) const fn int(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::Int, Some(default), range, doc)
}

pub(super) const fn short(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::Short, Some(default), range, doc)
}

pub(super) const fn long(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::Long, Some(default), range, doc)
}

pub(super) const fn double(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::Double, Some(default), range, doc)
}

pub(super) const fn text(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::String, Some(default), range, doc)
}

pub(super) const fn list(name: &'static str, default: &'static str, range: Range, doc: &'static str) -> Setting {
    setting(name, Kind::List, Some(default), range, doc)
}

pub(super) const fn unset(name: &'static str, kind: Kind, range: Range, doc: &'static str) -> Setting {
    setting(name, kind, None, range, doc)
}

impl Setting {
    /// Sets the part of the node in which it acts.
    pub(super) const fn acts(mut self, place: &'static str) -> Self {
        self.acts = Acts::In(place);
        self
    }

    /// Marks it as without effect, with the reason.
    pub(super) const fn idle(mut self, why: &'static str) -> Self {
        self.acts = Acts::Nowhere(why);
        self
    }

    /// Marks it as dynamic: it can change for one node or for all while they run.
    pub(super) const fn dynamic(mut self) -> Self {
        self.dynamic = Dynamic::Cluster;
        self
    }

    /// True for secrets.
    #[must_use]
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, Kind::Password)
    }

    /// The value in normal form, or what is wrong with it.
    ///
    /// # Errors
    /// When the value is not of the setting's type or outside its range.
    pub fn check(&self, value: &str) -> Result<String, InvalidValue> {
        let value = value.trim();
        let wrong = |why: String| InvalidValue { name: self.name.to_owned(), value: value.to_owned(), why };
        let number = |from: i64, to: i64| {
            let number: i64 = value.parse().map_err(|_| wrong(format!("not a number of type {}", self.kind)))?;
            if (from..=to).contains(&number) {
                Ok(number)
            } else {
                Err(wrong(format!("not a number of type {}", self.kind)))
            }
        };
        match self.kind {
            Kind::Boolean => match value.to_ascii_lowercase().as_str() {
                word @ ("true" | "false") => return Ok(word.to_owned()),
                _ => return Err(wrong("expected true or false".to_owned())),
            },
            Kind::Int => self.check_number(number(-INT_MAX - 1, INT_MAX)?).map_err(wrong)?,
            Kind::Short => self.check_number(number(i64::from(i16::MIN), i64::from(i16::MAX))?).map_err(wrong)?,
            Kind::Long => self.check_number(number(i64::MIN, i64::MAX)?).map_err(wrong)?,
            Kind::Double => self.check_fraction(value).map_err(wrong)?,
            Kind::String | Kind::List | Kind::Password => self.check_words(value).map_err(wrong)?,
        }
        Ok(value.to_owned())
    }

    fn check_number(&self, number: i64) -> Result<(), String> {
        match self.range {
            Range::Between(from, i64::MAX) if number < from => Err(format!("must be at least {from}")),
            Range::Between(from, to) if !(from..=to).contains(&number) => {
                Err(format!("must be between {from} and {to}"))
            }
            _ => Ok(()),
        }
    }

    fn check_fraction(&self, value: &str) -> Result<(), String> {
        let fraction: f64 = value.parse().map_err(|_| format!("not a number of type {}", self.kind))?;
        match self.range {
            Range::Fraction(from, to) if !(from..=to).contains(&fraction) => {
                Err(format!("must be between {from} and {to}"))
            }
            _ if fraction.is_finite() => Ok(()),
            _ => Err("must be finite".to_owned()),
        }
    }

    fn check_words(&self, value: &str) -> Result<(), String> {
        match self.range {
            Range::OneOf(words) if !words.contains(&value) => Err(format!("must be one of: {}", words.join(", "))),
            Range::SomeOf(words) => {
                let mut seen = Vec::new();
                for word in split_list(value) {
                    if !words.contains(&word) {
                        return Err(format!("must be some of: {}", words.join(", ")));
                    }
                    if seen.contains(&word) {
                        return Err(format!("{word} is there twice"));
                    }
                    seen.push(word);
                }
                Ok(())
            }
            Range::Expression => NameFilter::new(value).map(drop).map_err(|error| error.to_string()),
            Range::AddressCounts => {
                if split_list(value).all(|word| address_count(word).is_some()) {
                    Ok(())
                } else {
                    Err("must be pairs of an IP address and a number, as 10.0.0.1:5, by comma".to_owned())
                }
            }
            Range::ThrottledReplicas => {
                let pair = |word: &str| {
                    let (partition, node) = word.split_once(':')?;
                    Some((partition.trim().parse::<u32>().ok()?, node.trim().parse::<u32>().ok()?))
                };
                if value.is_empty() || value == "*" || split_list(value).all(|word| pair(word).is_some()) {
                    Ok(())
                } else {
                    Err("must be * or partition:node pairs by comma".to_owned())
                }
            }
            _ => Ok(()),
        }
    }
}

/// An address and its count.
pub(super) fn address_count(pair: &str) -> Option<(IpAddr, usize)> {
    let (address, count) = pair.rsplit_once(':')?;
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    Some((address.parse::<IpAddr>().ok()?.to_canonical(), count.trim().parse().ok()?))
}

/// The words of a list.
pub(super) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// A value that a setting does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}: {why}")]
pub struct InvalidValue {
    /// The setting.
    pub name: String,
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Boolean => "boolean",
            Kind::String => "string",
            Kind::Int => "int",
            Kind::Short => "short",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::List => "list",
            Kind::Password => "password",
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Any => f.write_str("any"),
            Range::Between(from, i64::MAX) => write!(f, "{from}..."),
            Range::Between(from, to) => write!(f, "{from}...{to}"),
            Range::Fraction(from, to) => write!(f, "{from}...{to}"),
            Range::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Range::SomeOf(words) => write!(f, "some of {}", words.join(", ")),
            Range::ThrottledReplicas => f.write_str("* or partition:node pairs"),
            Range::AddressCounts => f.write_str("address:count pairs"),
            Range::Expression => f.write_str("a regular expression"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_by_type_and_range() {
        let ratio = double("r", "0.5", Range::Fraction(0.0, 1.0), "");
        assert!(ratio.check("1").is_ok() && ratio.check("1.1").is_err() && ratio.check("NaN").is_err());
        let number = int("n", "1", at_least(1), "");
        assert_eq!(number.check(" 7 "), Ok("7".to_owned()));
        for bad in ["", "0", "-1", "2147483648", "1.5", "x"] {
            assert!(number.check(bad).is_err(), "{bad}");
        }
        let policy = list("p", "delete", Range::SomeOf(&["delete", "compact"]), "");
        assert!(
            policy.check("compact, delete").is_ok()
                && policy.check("compact,compact").is_err()
                && policy.check("x").is_err()
        );
        let replicas = list("l", "", Range::ThrottledReplicas, "");
        assert!(replicas.check("*").is_ok() && replicas.check("0:1,2:3").is_ok() && replicas.check("0").is_err());
        let counts = text("c", "", Range::AddressCounts, "");
        assert!(counts.check("").is_ok() && counts.check("10.0.0.1:5, [::1]:6,::2:7").is_ok());
        assert!(
            counts.check("10.0.0.1").is_err() && counts.check("10.0.0.1:-1").is_err() && counts.check("x:1").is_err()
        );
        let filter = text("f", "", Range::Expression, "");
        assert!(filter.check("orders-.*").is_ok() && filter.check("").is_ok() && filter.check("orders-(").is_err());
        assert_eq!(boolean("b", "true", "").check("FALSE"), Ok("false".to_owned()));
    }
}
