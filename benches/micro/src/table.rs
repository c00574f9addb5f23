//! The committed table, and what counts as a change of it.
//!
//! More than 5 % above: a path has become dearer. More than 20 % below: it has become cheaper, and the table is to say so,
//! else as much could be lost again unseen. Numbers of another processor are not compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use crate::cases::Case;
use crate::measure::measure;

const MORE_PERCENT_MAX: u64 = 5;
const FEWER_PERCENT_MAX: u64 = 20;

const HEAD: &str = "\
# Instructions of one iteration of each case of benches/micro, as valgrind counts them in a release build.
# `cargo micro --write` renews it; say in the commit why a number rose.
";
const PROCESSOR: &str = "# processor: ";

#[derive(Debug, Default, PartialEq)]
struct Table {
    processor: String,
    rows: BTreeMap<String, u64>,
}

impl Table {
    fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for line in text.lines() {
            if let Some(processor) = line.strip_prefix(PROCESSOR) {
                table.processor = processor.to_owned();
            } else if !line.is_empty() && !line.starts_with('#') {
                let mut words = line.split_whitespace();
                let row = (words.next(), words.next().and_then(|number| number.parse().ok()), words.next());
                let (Some(name), Some(instructions), None) = row else { return Err(format!("what is this? {line}")) };
                table.rows.insert(name.to_owned(), instructions);
            }
        }
        Ok(table)
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}{PROCESSOR}{}\n\n", self.processor);
        for (name, instructions) in &self.rows {
            let _ = writeln!(text, "{name:<28} {instructions:>12}");
        }
        text
    }
}

/// What is to be said of a row; `None` if it is as it was.
fn complaint(before: Option<u64>, now: u64) -> Option<String> {
    let Some(before) = before else { return Some("is not in the table: micro --write".to_owned()) };
    let percent = change(before, now);
    if now * 100 > before * (100 + MORE_PERCENT_MAX) {
        Some(format!("takes {percent:.1} % more instructions, at most {MORE_PERCENT_MAX} % are let pass"))
    } else if now * 100 < before * (100 - FEWER_PERCENT_MAX) {
        Some(format!("takes {:.1} % fewer instructions: renew the table with micro --write", -percent))
    } else {
        None
    }
}

fn change(before: u64, now: u64) -> f64 {
    (now as f64 / before.max(1) as f64 - 1.0) * 100.0
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("table.txt")
}

/// Measures the cases; true if all are as the table says, or `write` made it say so. `whole`: they are all that there are.
pub(crate) fn compare(cases: &[Case], whole: bool, write: bool) -> Result<bool, String> {
    let known = match std::fs::read_to_string(path()) {
        Ok(text) => Table::parse(&text).map_err(|error| format!("{}: {error}", path().display()))?,
        Err(error) if write && error.kind() == std::io::ErrorKind::NotFound => Table::default(),
        Err(error) => return Err(format!("{}: {error}", path().display())),
    };
    let mut found = Table { rows: if whole { BTreeMap::new() } else { known.rows.clone() }, ..Table::default() };
    let mut complaints = Vec::new();
    for case in cases {
        let measured = measure(case)?;
        if !write && measured.processor != known.processor {
            return Err(format!(
                "the table is of \"{}\" and valgrind is \"{}\" here: these counts cannot be compared",
                known.processor, measured.processor
            ));
        }
        found.processor = measured.processor;
        let before = known.rows.get(case.name).copied();
        let percent =
            before.map_or_else(String::new, |before| format!("{:+.2} %", change(before, measured.instructions)));
        println!("{:<28} {:>12} {percent:>10}", case.name, measured.instructions);
        complaints.extend(complaint(before, measured.instructions).map(|what| (case, what)));
        found.rows.insert(case.name.to_owned(), measured.instructions);
    }
    if write {
        std::fs::write(path(), found.text()).map_err(|error| format!("{}: {error}", path().display()))?;
        return Ok(true);
    }
    for name in known.rows.keys().filter(|name| !found.rows.contains_key(*name)) {
        println!("{name} is in the table and is no case: micro --write");
    }
    for (case, what) in &complaints {
        println!("{}: {what}", case.name);
        println!("  valgrind --tool=callgrind target/release/micro --case {} --iterations {}", case.name, case.many);
    }
    Ok(complaints.is_empty() && known.rows.keys().all(|name| found.rows.contains_key(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was_written() {
        let table =
            Table { processor: "x86_64 avx2".to_owned(), rows: [("a".to_owned(), 1), ("b".to_owned(), 20)].into() };
        assert_eq!(Table::parse(&table.text()), Ok(table));
        assert!(Table::parse("a 1 2").is_err());
        assert!(Table::parse("a many").is_err());
    }

    #[test]
    fn five_percent_more_and_twenty_fewer_are_let_pass() {
        assert_eq!(complaint(Some(1000), 1050), None);
        assert_eq!(complaint(Some(1000), 800), None);
        assert!(complaint(Some(1000), 1051).is_some());
        assert!(complaint(Some(1000), 799).is_some());
        assert!(complaint(None, 1).is_some());
    }
}
