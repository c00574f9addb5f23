//! A regular expression over names (of topics, of groups): it has to match a name from its first character to its last,
//! as Prometheus matches labels.
//!
//! May not know: what the names are of, where the expression comes from.

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take: one received over HTTP must not cost more.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Names by a regular expression. The empty expression matches no name.
#[derive(Debug, Clone)]
pub struct NameFilter {
    expression: String,
    /// The expression, anchored at both ends.
    whole: Regex,
}

/// An expression that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a regular expression: {0}")]
pub struct InvalidExpression(String);

impl NameFilter {
    /// A filter by `expression`.
    ///
    /// # Errors
    /// When `expression` is not a regular expression, or one that takes too much memory.
    pub fn new(expression: &str) -> Result<Self, InvalidExpression> {
        // Compiled alone first: surplus closing brackets would pair with those that are put around the expression.
        compile(expression)?;
        let whole = compile(&format!("^(?:{expression})$"))?;
        Ok(Self { expression: expression.to_owned(), whole })
    }

    /// The expression as given.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// True if the expression matches all of `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.whole.is_match(name)
    }
}

fn compile(expression: &str) -> Result<Regex, InvalidExpression> {
    let refused = |error: regex::Error| {
        // A syntax error is a drawing of several lines; the last one is the message.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        InvalidExpression(last.strip_prefix("error: ").unwrap_or(last).to_owned())
    };
    RegexBuilder::new(expression)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_whole_and_nothing_by_nothing() {
        let filter = |expression: &str| NameFilter::new(expression).unwrap();
        assert!(filter("orders").matches("orders") && !filter("orders").matches("orders-2"));
        assert!(filter("a|b").matches("b") && !filter("a|b").matches("ab"));
        assert!(filter("orders-.*").matches("orders-2") && filter(r"\w+").matches("größe"));
        assert!(!filter("").matches("orders"));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_line_that_says_why() {
        let refused = |expression: &str| NameFilter::new(expression).unwrap_err().to_string();
        assert_eq!(refused("a("), "not a regular expression: unclosed group");
        assert!(refused("a)(b").contains("unopened group"), "{}", refused("a)(b"));
        assert!(refused(r"\w{100}{100}{100}").contains("size limit"), "{}", refused(r"\w{100}{100}{100}"));
    }
}
