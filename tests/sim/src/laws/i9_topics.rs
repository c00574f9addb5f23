//! I9: a creation, deletion, partition or setting of a topic that was acknowledged is seen by whoever asks any node later, and
//! never again what was before it. Each name has one owner, which changes it step by step and leaves it after a step without
//! an answer. A producer id is never given twice, and a topic's id belongs to one creation.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Violation;

const LAW: &str = "I9 changes of topics survive, and everybody sees them";

/// What a topic is after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `None`: its creation got no answer.
    pub(crate) id: Option<Uuid>,
    pub(crate) partitions: i32,
    pub(crate) retention_ms: Option<i64>,
}

/// All steps of a name; what it is after each, `None`: there is no such topic.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    pub(crate) after: Vec<Option<Shape>>,
    /// The last step that was acknowledged.
    pub(crate) acknowledged: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { after: vec![None], acknowledged: 0 }
    }
}

/// A topic as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) retention_ms: Option<i64>,
}

fn matches(shape: Option<&Shape>, seen: Option<&Seen>) -> bool {
    match (shape, seen) {
        (None, None) => true,
        (Some(shape), Some(seen)) => {
            shape.id.is_none_or(|id| id == seen.id)
                && (shape.partitions, shape.retention_ms) == (seen.partitions, seen.retention_ms)
        }
        _ => false,
    }
}

/// A current view, asked for after step `before` was acknowledged.
pub(crate) fn current(name: &str, who: &str, before: usize, now: &Steps, seen: Option<&Seen>) -> Result<(), Violation> {
    if now.after.iter().skip(before).any(|shape| matches(shape.as_ref(), seen)) {
        return Ok(());
    }
    let what = format!("{who} sees {name} as {seen:?}; step {before} was acknowledged before, of {:?}", now.after);
    Err(Violation::new(LAW, None, what))
}

/// "Unknown topic", asked for after step `before` was acknowledged.
pub(crate) fn unknown(name: &str, who: &str, before: usize, now: &Steps) -> Result<(), Violation> {
    current(name, &format!("{who}, to a client,"), before, now, None)
}

/// Nobody else had this id.
pub(crate) fn new_id<T>(given: &mut BTreeMap<T, String>, id: T, to: &str) -> Result<(), Violation>
where
    T: Ord + Clone + std::fmt::Debug,
{
    match given.insert(id.clone(), to.to_owned()) {
        None => Ok(()),
        Some(other) => Err(Violation::new("ids are given once", None, format!("{id:?} given to {other} and to {to}"))),
    }
}

/// A topic that was made again shows only what was sent to it.
pub(crate) fn own_records(name: &str, id: Uuid, foreign: Option<u64>) -> Result<(), Violation> {
    foreign.map_or(Ok(()), |value| {
        let what = format!("{name} ({id}) shows {value:x}, which was not sent to it");
        Err(Violation::new("a topic made again shows no old records", None, what))
    })
}

/// What was acknowledged to a topic's producer is there.
pub(crate) fn kept(name: &str, id: Uuid, missing: Option<(i64, u64)>) -> Result<(), Violation> {
    missing.map_or(Ok(()), |(offset, value)| {
        let what = format!("{name} ({id}) was acknowledged {value:x} at {offset} and does not show it there");
        Err(Violation::new("I1 acknowledged is durable", None, what))
    })
}
