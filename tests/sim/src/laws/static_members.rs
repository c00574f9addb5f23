//! Static members (KIP-345):
//! - a group whose members come back in time, with the subscription that they had, does not rebalance;
//! - the process whose place another one has taken is fenced: told that it is unknown, it would take the place again.

use super::Violation;

const UNKNOWN_MEMBER: i16 = 25;
/// FENCED_INSTANCE_ID.
pub(crate) const FENCED: i16 = 82;

/// A member joined `generation` after all had synced `settled`.
pub(crate) fn keeps(group: &str, settled: Option<i32>, generation: i32) -> Result<(), Violation> {
    if settled.is_none_or(|settled| settled == generation) {
        return Ok(());
    }
    let what = format!("group {group}: all had synced {settled:?}, and one that came back joined {generation}");
    Err(Violation::new("static members that come back cause no rebalance", None, what))
}

/// The member with this id had been replaced, and was answered `code`: an error of the coordinator says nothing of it.
pub(crate) fn fenced(group: &str, instance: &str, id: &str, code: i16) -> Result<(), Violation> {
    if code != 0 && code != UNKNOWN_MEMBER {
        return Ok(());
    }
    let what = format!("group {group}, {instance}: {id}, whose place was taken, was answered {code}, not {FENCED}");
    Err(Violation::new("a static member that was replaced is fenced", None, what))
}
