//! Progress: after the faults everything works again within a bounded time.

use super::Violation;
use crate::world::Kind;

const LAW: &str = "progress after the storm";

/// Some clients have not ended, or some nodes have not caught up.
pub(crate) fn stuck(seconds: u64, clients: &[Kind], what: String) -> Violation {
    let partition = clients.iter().find_map(|(_, partition)| *partition);
    let law = Violation::new(LAW, None, format!("after {seconds} s without faults: clients {clients:?}, {what}"));
    Violation { partition, ..law }
}
