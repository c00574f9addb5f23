//! Error correction: finds and corrects one wrong byte of a frame by the frame's own CRC.
//!
//! A CRC-32 that fails by a difference `d` names, for each place, the one byte error that would cause `d`, if there is
//! one: the register is run backwards from the end. A correction counts only if it is the only one that makes the frame
//! sound, and if there were so few to choose from that chance makes none. May not know: files, and what a frame means.

use super::frame::{DESCRIPTOR_BYTES, FrameLayout, HEAD_BYTES, is_sound, layout, sum_of, u32_le};

/// Errors that the CRC must distinguish: of 2^32 values that a random difference could have, so many pass for a byte
/// error. One in 4,096 at most.
const ERRORS_MAX: usize = 1 << 20;
const BYTE_ERRORS: usize = 255;
/// Bit errors at each byte: what is left to look for in a long frame.
const BIT_ERRORS: usize = 8;

/// A byte that was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correction {
    /// Its position, relative to the frame.
    pub(crate) at: usize,
    /// Its right value.
    pub(crate) byte: u8,
}

/// Bytes of the head that say how long its parts are: a frame in which one of these is wrong has another layout.
const LENGTH_AT: usize = 0;
const CRC_AT: usize = 4;
const COUNT_AT: usize = 20;
const PAYLOAD_AT: usize = 72;
const BATCH_LENGTH_AT: usize = 20;

/// The only byte that makes the frame at the front of `bytes` sound; `None` if there is none, or more than one.
pub(crate) fn correction_of(bytes: &[u8], incarnation: u64) -> Option<Correction> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let candidates = match layout(bytes) {
        Some(layout) => errors_by_sum(bytes, &layout),
        None => errors_of_lengths(bytes),
    };
    let mut copy = bytes.to_vec();
    let mut sound = candidates.into_iter().filter(|candidate| {
        let wrong = std::mem::replace(&mut copy[candidate.at], candidate.byte);
        let is_sound = is_sound(&copy, incarnation);
        copy[candidate.at] = wrong;
        is_sound
    });
    let only = sound.next()?;
    sound.next().is_none().then_some(only)
}

/// For lengths that agree with each other: the guarded bytes are known, and the sum shows which of them is wrong.
fn errors_by_sum(bytes: &[u8], layout: &FrameLayout) -> Vec<Correction> {
    let Some(difference) = sum_of(bytes, layout).map(|sum| sum ^ u32_le(bytes, CRC_AT)) else { return Vec::new() };
    let guarded = layout.guarded();
    let count: usize = guarded.iter().map(ExactSizeIterator::len).sum();
    let bits_only = count.saturating_mul(BYTE_ERRORS) > ERRORS_MAX;
    if difference == 0 || bits_only && count.saturating_mul(BIT_ERRORS) > ERRORS_MAX {
        return Vec::new();
    }
    let may_be = |error: u8| error != 0 && (!bits_only || error.is_power_of_two());
    let mut found = Vec::new();
    let of_crc = difference.to_le_bytes();
    if let [(at, error)] = *of_crc.iter().enumerate().filter(|(_, error)| **error != 0).collect::<Vec<_>>()
        && may_be(*error)
    {
        found.push(Correction { at: CRC_AT + at, byte: bytes[CRC_AT + at] ^ error });
    }
    let (table, by_top) = tables();
    let mut register = difference;
    for at in guarded.into_iter().rev().flat_map(Iterator::rev) {
        let index = by_top[(register >> 24) as usize];
        register = (register ^ table[usize::from(index)]) << 8 | u32::from(index);
        if let Ok(error) = u8::try_from(register)
            && may_be(error)
        {
            found.push(Correction { at, byte: bytes[at] ^ error });
        }
    }
    found
}

/// For a wrong length: the values that would agree with the other lengths.
fn errors_of_lengths(bytes: &[u8]) -> Vec<Correction> {
    let mut found = Vec::new();
    let every_byte = |at: usize| (at..at + 4).flat_map(|at| (0..=u8::MAX).map(move |byte| Correction { at, byte }));
    found.extend(every_byte(COUNT_AT));
    let (length, count) = (i64::from(u32_le(bytes, LENGTH_AT)), u32_le(bytes, COUNT_AT) as usize);
    let payload = i64::from(u32_le(bytes, PAYLOAD_AT));
    let Some(described) =
        count.checked_mul(DESCRIPTOR_BYTES).and_then(|described| bytes[HEAD_BYTES..].get(..described))
    else {
        return found;
    };
    let lengths = || described.chunks_exact(DESCRIPTOR_BYTES).map(|one| i64::from(u32_le(one, BATCH_LENGTH_AT)));
    let sum = (HEAD_BYTES + described.len()) as i64 + payload + lengths().sum::<i64>();
    let mut other = |at: usize, value: i64| {
        let Ok(value) = u32::try_from(value) else { return };
        let (is, wanted) = (u32_le(bytes, at).to_le_bytes(), value.to_le_bytes());
        if let [wrong] = (0..4).filter(|byte| is[*byte] != wanted[*byte]).collect::<Vec<_>>()[..] {
            found.push(Correction { at: at + wrong, byte: wanted[wrong] });
        }
    };
    other(LENGTH_AT, sum);
    other(PAYLOAD_AT, payload + length - sum);
    let mut batch_at = (HEAD_BYTES + described.len()) as i64 + payload;
    for (number, batch) in lengths().enumerate() {
        let wanted = batch + length - sum;
        // The batch holds its length, too.
        let says = usize::try_from(batch_at).ok().and_then(|at| bytes.get(at + 8..at + 12));
        let says = says.map(|says| i64::from(u32::from_be_bytes([says[0], says[1], says[2], says[3]])) + 12);
        if says == Some(wanted) {
            other(HEAD_BYTES + number * DESCRIPTOR_BYTES + BATCH_LENGTH_AT, wanted);
        }
        batch_at += batch;
    }
    found
}

/// The table of CRC-32 (IEEE, as crc32fast computes it), and which of its values has these upper eight bits.
fn tables() -> ([u32; 256], [u8; 256]) {
    let (mut table, mut by_top) = ([0; 256], [0; 256]);
    for byte in 0..=u8::MAX {
        let mut value = u32::from(byte);
        for _ in 0..8 {
            value = value >> 1 ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
        table[usize::from(byte)] = value;
        by_top[(value >> 24) as usize] = byte;
    }
    (table, by_top)
}

#[cfg(test)]
mod tests;
