//! `ottla topic consume`: prints records, in order within each partition.

use std::fmt::Write;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::client::{ReadRecord, Reader, Start};
use crate::commands::common::{Bootstrap, Format, Output};
use crate::commands::failure::Failure;
use crate::commands::{output, units};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ottla topic consume orders --exit-at-end\n  ottla topic consume orders --from 2026-11-21T10:00:00 --max-messages 10 -o json"
)]
pub(in crate::commands) struct Words {
    /// Name of the topic
    topic: String,
    /// Where to begin: beginning, end, an offset, or a time (2026-11-21T10:30:00; UTC unless it has a zone)
    #[arg(short = 'f', long, value_name = "PLACE", default_value = "beginning", value_parser = start, allow_hyphen_values = true)]
    from: Start,
    /// Read only these partitions, by comma [default: all]
    #[arg(short = 'p', long = "partition", value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Ends after so many records
    #[arg(short = 'n', long, value_name = "N")]
    max_messages: Option<u64>,
    /// Ends with the last record that is there at the start
    #[arg(short = 'e', long)]
    exit_at_end: bool,
    /// Prints the key and this before each value
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// JSON: an object a line. A table: values alone, as they are
    #[command(flatten)]
    output: Output,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" | "earliest" | "start" => Ok(Start::Earliest),
        "end" | "latest" => Ok(Start::Latest),
        _ => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
            Ok(_) => Err("an offset is not negative".to_owned()),
            Err(_) => {
                units::time(text).map(Start::Time).map_err(|error| format!("no beginning, end or offset; and {error}"))
            }
        },
    }
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let mut left = words.max_messages.unwrap_or(u64::MAX);
    let cluster = words.bootstrap.cluster();
    let mut reader = Reader::open(cluster, &words.topic, &words.partitions, words.from, words.exit_at_end).await?;
    while left > 0 {
        let Some(mut records) = reader.next().await? else { return Ok(()) };
        for note in reader.take_notes() {
            output::say(&note);
        }
        records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= records.len() as u64;
        if records.is_empty() {
            continue;
        }
        match words.output.format {
            Format::Json => output::print(&lines(&words.topic, &records))?,
            Format::Table => output::print_bytes(&values(&records, words.key_separator.as_deref()))?,
        }
    }
    Ok(())
}

/// Values unchanged, one line each; a tombstone is an empty line.
fn values(records: &[ReadRecord], key_separator: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        if let Some(separator) = key_separator {
            out.extend_from_slice(record.key.as_deref().unwrap_or_default());
            out.extend_from_slice(separator.as_bytes());
        }
        out.extend_from_slice(record.value.as_deref().unwrap_or_default());
        out.push(b'\n');
    }
    out
}

fn lines(topic: &str, records: &[ReadRecord]) -> String {
    let mut out = String::new();
    for record in records {
        let header = |(name, value): &(Bytes, Option<Bytes>)| json!({ "key": String::from_utf8_lossy(name), "value": in_json(value.as_ref()) });
        let line = json!({
            "topic": topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": in_json(record.key.as_ref()),
            "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
            "value": in_json(record.value.as_ref()),
        });
        // Writing to a String does not fail.
        let _ = writeln!(out, "{line}");
    }
    out
}

/// A string for UTF-8; other bytes as `{"hex": ...}`; null for no bytes.
fn in_json(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ReadRecord {
        let headers = vec![(Bytes::from_static(b"h"), None)];
        let (key, value) = (key.map(Bytes::from_static), value.map(Bytes::from_static));
        ReadRecord { partition: 2, offset: 7, timestamp: 1_000, key, value, headers }
    }

    #[test]
    fn every_way_to_say_where_to_begin() {
        assert_eq!(start("beginning"), Ok(Start::Earliest));
        assert_eq!(start("end"), Ok(Start::Latest));
        assert_eq!(start("42"), Ok(Start::Offset(42)));
        assert_eq!(start("1970-01-01T00:00:01Z"), Ok(Start::Time(1_000)));
        assert!(start("-1").is_err() && start("soon").is_err());
    }

    #[test]
    fn records_are_shown_as_values_and_as_json() {
        let records = [record(Some(b"k"), Some(b"v")), record(None, None)];
        assert_eq!(values(&records, None), b"v\n\n");
        assert_eq!(values(&records, Some("=")), b"k=v\n=\n");
        let shown = lines("t", &[record(Some(&[0xff, 0]), Some("ä".as_bytes()))]);
        let shown: Value = serde_json::from_str(shown.trim_end()).unwrap();
        let expected = json!({
            "topic": "t", "partition": 2, "offset": 7, "timestamp": 1_000,
            "key": { "hex": "ff00" }, "headers": [{ "key": "h", "value": null }], "value": "ä",
        });
        assert_eq!(shown, expected);
    }
}
