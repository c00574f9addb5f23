//! I2: offsets of a partition are dense and never reused with other content.

use std::collections::BTreeMap;

use super::Violation;
use crate::oracle::Known;

const LAW: &str = "I2 dense offsets, never reused";

pub(crate) fn one_value_an_offset(index: i32, known: &Known, offset: i64, value: u64) -> Result<(), Violation> {
    match known.values.get(&offset) {
        Some(before) if *before != value => Err(Violation::new(
            LAW,
            index,
            format!("offset {offset} was told to hold {before:x}, now it holds {value:x}"),
        )),
        _ => Ok(()),
    }
}

/// All records of a partition that one replica has.
pub(crate) fn dense(index: i32, who: &str, held: &BTreeMap<i64, u64>, from: i64, end: i64) -> Result<(), Violation> {
    let mut expected = from;
    for offset in held.keys() {
        if *offset != expected {
            return Err(Violation::new(
                LAW,
                index,
                format!("{who}: offset {expected} is missing, the next is {offset}"),
            ));
        }
        expected += 1;
    }
    if expected != end {
        return Err(Violation::new(
            LAW,
            index,
            format!("{who}: the end is {end}, the last offset found {}", expected - 1),
        ));
    }
    Ok(())
}
