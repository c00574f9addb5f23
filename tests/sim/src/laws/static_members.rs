//! Static members (KIP-345):
//! - a group whose members come back in time, with the subscription that they had, does not rebalance;
//! - the process whose place another one has taken is fenced: told that it is unknown, it would take the place again.

use super::Violation;

const UNKNOWN_MEMBER: i16 = 25;
const ILLEGAL_GENERATION: i16 = 22;
const REBALANCE: i16 = 27;
const FENCED: i16 = 82;

/// A member joined `generation` after all had synced `settled`.
pub(crate) fn keeps(group: &str, settled: Option<i32>, generation: i32) -> Result<(), Violation> {
    if settled.is_none_or(|settled| settled == generation) {
        return Ok(());
    }
    let what = format!("group {group}: all had synced {settled:?}, and one that came back joined {generation}");
    Err(Violation::new("static members that come back cause no rebalance", None, what))
}

/// The member with this id had been replaced.
pub(crate) fn not_fenced(group: &str, instance: &str, id: &str, code: i16) -> Violation {
    let what = format!("group {group}, {instance}: {id}, whose place was taken, was answered {code}, not {FENCED}");
    Violation::new("a static member that was replaced is fenced", None, what)
}

/// True if a member with this answer has to join again.
pub(crate) fn has_to_join(code: i16) -> bool {
    [UNKNOWN_MEMBER, ILLEGAL_GENERATION, REBALANCE, FENCED].contains(&code)
}
