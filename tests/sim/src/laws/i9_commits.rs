//! I9: an acknowledged offset commit survives. Each group has one committer, whose offsets only grow: a fetched offset
//! lies between the greatest acknowledged before and the greatest sent, or is one that got no answer.

use super::Violation;
use crate::oracle::Commits;

const LAW: &str = "I9 committed offsets survive";

pub(crate) fn fetched(group: &str, before: &Commits, after: &Commits, told: Option<i64>) -> Result<(), Violation> {
    let told = told.unwrap_or(0);
    let late = after.unanswered.contains(&told);
    if (told < before.acknowledged && !late) || told > after.attempted {
        let what = format!(
            "group {group}: fetched {told}, {} was acknowledged before, {} was the greatest asked for",
            before.acknowledged, after.attempted
        );
        return Err(Violation::new(LAW, None, what));
    }
    Ok(())
}
