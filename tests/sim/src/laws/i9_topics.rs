//! I9: an acknowledged creation, deletion or change of a topic is visible to every later query of any node, and never
//! again the state before it. Each name is changed by one client, step by step, and not used any more after a step
//! without an answer. A producer id is never assigned twice, and a topic id belongs to one creation.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Violation;

const LAW: &str = "I9 changes of topics survive, and everybody sees them";

/// The state of a topic after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `None`: its creation got no answer.
    pub(crate) id: Option<Uuid>,
    pub(crate) partitions: i32,
    pub(crate) retention_ms: Option<i64>,
}

/// All steps of a name: its state after each, `None` if there is no such topic.
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

/// The state of a topic in an answer.
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

/// The answer to a query that was sent after step `before` was acknowledged.
pub(crate) fn current(name: &str, who: &str, before: usize, now: &Steps, seen: Option<&Seen>) -> Result<(), Violation> {
    if now.after.iter().skip(before).any(|shape| matches(shape.as_ref(), seen)) {
        return Ok(());
    }
    let what = format!("{who} sees {name} as {seen:?}; step {before} was acknowledged before, of {:?}", now.after);
    Err(Violation::new(LAW, None, what))
}

/// UNKNOWN_TOPIC_OR_PARTITION for a request that was sent after step `before` was acknowledged.
pub(crate) fn unknown(name: &str, who: &str, before: usize, now: &Steps) -> Result<(), Violation> {
    current(name, &format!("{who}, to a client,"), before, now, None)
}

/// This id was assigned only once.
pub(crate) fn new_id<T>(given: &mut BTreeMap<T, String>, id: T, to: &str) -> Result<(), Violation>
where
    T: Ord + Clone + std::fmt::Debug,
{
    match given.insert(id.clone(), to.to_owned()) {
        None => Ok(()),
        Some(other) => Err(Violation::new("ids are given once", None, format!("{id:?} given to {other} and to {to}"))),
    }
}

/// A topic that was created again shows only records that were sent to it.
pub(crate) fn own_records(name: &str, id: Uuid, foreign: Option<u64>) -> Result<(), Violation> {
    foreign.map_or(Ok(()), |value| {
        let what = format!("{name} ({id}) shows {value:x}, which was not sent to it");
        Err(Violation::new("a topic made again shows no old records", None, what))
    })
}

/// Records acknowledged to a topic's producer are there.
pub(crate) fn kept(name: &str, id: Uuid, missing: Option<(i64, u64)>) -> Result<(), Violation> {
    missing.map_or(Ok(()), |(offset, value)| {
        let what = format!("{name} ({id}) was acknowledged {value:x} at {offset} and does not show it there");
        Err(Violation::new("I1 acknowledged is durable", None, what))
    })
}
