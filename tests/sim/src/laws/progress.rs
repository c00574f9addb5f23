//! When faults stop, everything works again within a bounded time.

use super::Violation;

const LAW: &str = "progress after the storm";

pub(crate) fn stuck(seconds: u64, what: String) -> Violation {
    Violation::new(LAW, None, format!("after {seconds} s without faults: {what}"))
}
