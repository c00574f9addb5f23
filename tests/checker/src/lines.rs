//! JSONL, one event per line: encoding and decoding of text; the caller does the I/O.

use thiserror::Error;

use crate::event::Event;
use crate::history::{BadEvent, History, Recorder};

#[derive(Debug, Error)]
pub enum BadLine {
    #[error("line {line} is no event: {reason}")]
    NoEvent { line: usize, reason: serde_json::Error },
    #[error("line {line} does not fit: {reason}")]
    DoesNotFit { line: usize, reason: BadEvent },
}

/// An event as a line, without its end.
pub fn write(event: &Event) -> Result<String, serde_json::Error> {
    serde_json::to_string(event)
}

/// A line as an event.
pub fn read(line: &str) -> Result<Event, serde_json::Error> {
    serde_json::from_str(line)
}

/// A whole history. Empty lines are passed over; events are numbered without them.
pub fn history(text: &str) -> Result<History, BadLine> {
    let mut recorder = Recorder::default();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let event = read(line).map_err(|reason| BadLine::NoEvent { line: number + 1, reason })?;
        recorder.push(event).map_err(|reason| BadLine::DoesNotFit { line: number + 1, reason })?;
    }
    Ok(recorder.finish())
}
