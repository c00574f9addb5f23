//! Standard input, line by line, read by its own thread; lines that are available together are returned together.
//!
//! May not know: what a line means.

use std::io::{self, BufRead, BufReader, Read};

use ottla_env::rt;
use tokio::sync::mpsc;

/// The longest line.
const LINE_BYTES_MAX: u64 = 16 << 20;
const BUFFER_BYTES: usize = 64 << 10;

/// Lines that were available together, without their line ends.
pub(super) type Lines = Vec<Vec<u8>>;

/// Reads standard input. Each piece holds about `piece_bytes`, or less if no more input was available.
pub(super) fn lines(piece_bytes: usize) -> mpsc::Receiver<io::Result<Lines>> {
    // One piece is queued while another is processed.
    let (sender, receiver) = mpsc::channel(1);
    drop(rt::spawn_blocking(move || {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, io::stdin());
        loop {
            match piece(&mut input, piece_bytes) {
                Ok(lines) if lines.is_empty() => return,
                piece => {
                    let failed = piece.is_err();
                    if sender.blocking_send(piece).is_err() || failed {
                        return;
                    }
                }
            }
        }
    }));
    receiver
}

/// The next lines; empty at the end of the input.
fn piece<R: Read>(input: &mut BufReader<R>, piece_bytes: usize) -> io::Result<Lines> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(lines);
        }
        bytes += line.len();
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if line.len() as u64 > LINE_BYTES_MAX {
            let why = format!("a line is longer than {} MiB", LINE_BYTES_MAX >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        lines.push(line);
        if bytes >= piece_bytes || !input.buffer().contains(&b'\n') {
            return Ok(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8], capacity: usize, piece_bytes: usize) -> Vec<Vec<String>> {
        let mut input = BufReader::with_capacity(capacity, text);
        let next = || Some(piece(&mut input, piece_bytes).unwrap()).filter(|lines| !lines.is_empty());
        let strings = |lines: Lines| lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        std::iter::from_fn(next).map(strings).collect()
    }

    #[test]
    fn lines_come_together_as_far_as_they_are_there_and_fit() {
        assert_eq!(pieces(b"a\nb\r\n\nlast", 64, 100), [vec!["a", "b", ""], vec!["last"]]);
        assert_eq!(pieces(b"a\nb\nc\n", 64, 4), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(pieces(b"aaa\nb\n", 4, 100), [vec!["aaa"], vec!["b"]]);
        assert!(pieces(b"", 64, 4).is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut input = BufReader::new(io::repeat(b'x'));
        assert_eq!(piece(&mut input, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
