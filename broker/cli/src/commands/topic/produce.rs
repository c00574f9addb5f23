//! `ottla topic produce`: each line of standard input is a record.

use clap::{Args, ValueEnum};
use ottla_protocol::compression::Codec;
use serde_json::json;

use crate::client::{Acks, NewRecord, Producer, RecordMetadata, SEND_BYTES, Target};
use crate::commands::common::{Bootstrap, Format, Output, pair};
use crate::commands::failure::Failure;
use crate::commands::{input, output};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  echo 'hello' | ottla topic produce greetings\n  printf 'k1:a\\nk2:b\\n' | ottla topic produce greetings --key-separator : -o json"
)]
pub(in crate::commands) struct Words {
    /// Name of the topic
    topic: String,
    /// A line is a key, this, and a value; without it a record has no key
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = separator)]
    key_separator: Option<String>,
    /// Write all to one partition [default: by the key's hash; without key, in turn]
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Who must have a record before it counts as written: all (in sync), leader, none; or -1, 1, 0
    #[arg(long, value_enum, default_value_t = AcksWord::All, allow_hyphen_values = true)]
    acks: AcksWord,
    /// A header for every record; may be given often
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Compresses: none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Codec,
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// JSON: an object a line with partition and offset of each record. A table: nothing is printed
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AcksWord {
    #[value(alias = "-1")]
    All,
    #[value(alias = "1")]
    Leader,
    #[value(alias = "0")]
    None,
}

fn separator(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.replace("\\t", "\t")) }
}

fn codec(text: &str) -> Result<Codec, String> {
    Codec::from_name(text).ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

pub(super) async fn run(words: &Words) -> Result<(), Failure> {
    let acks = match words.acks {
        AcksWord::All => Acks::All,
        AcksWord::Leader => Acks::Leader,
        AcksWord::None => Acks::None,
    };
    let target = words.partition.map_or(Target::ByKey, Target::Partition);
    let cluster = words.bootstrap.cluster();
    let mut producer = Producer::open(cluster, &words.topic, target, acks, words.compression).await?;
    let mut pieces = input::lines(SEND_BYTES);
    let mut count = 0;
    while let Some(lines) = pieces.recv().await {
        let lines = lines.map_err(|error| Failure::Said(format!("standard input: {error}")))?;
        let mut records = Vec::with_capacity(lines.len());
        for line in lines {
            count += 1;
            records.push(record(line, words, count)?);
        }
        let placed = producer.send(&records).await?;
        if words.output.format == Format::Json {
            output::print(&placed.iter().map(in_json).collect::<String>())?;
        }
    }
    Ok(())
}

fn record(line: Vec<u8>, words: &Words, number: u64) -> Result<NewRecord, Failure> {
    let headers = words.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let Some(separator) = &words.key_separator else {
        return Ok(NewRecord { key: None, value: Some(line), headers });
    };
    match split(&line, separator.as_bytes()) {
        Some((key, value)) => Ok(NewRecord { key: Some(key.to_vec()), value: Some(value.to_vec()), headers }),
        None => Err(Failure::Said(format!(
            "line {number} has no key separator {separator:?}; what came before it is written"
        ))),
    }
}

/// The parts before and after the first separator.
fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((line.get(..at)?, line.get(at + separator.len()..)?))
}

fn in_json(placed: &RecordMetadata) -> String {
    format!("{}\n", json!({ "partition": placed.partition, "offset": placed.offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"k::v::w", b"::"), Some((&b"k"[..], &b"v::w"[..])));
        assert_eq!(split(b"::v", b"::"), Some((&b""[..], &b"v"[..])));
        assert_eq!(split(b"k:v", b"::"), None);
        assert_eq!(split(b"", b":"), None);
        assert_eq!(separator("\\t").as_deref(), Ok("\t"));
        assert!(separator("").is_err() && codec("brotli").is_err());
    }
}
