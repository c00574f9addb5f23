//! One law per file. Each finds its violations in the facts; none uses another.

use crate::facts::Facts;
use crate::report::Findings;

mod aborted_read;
mod bank_sum;
mod committed_offset;
mod committed_offset_falls;
mod committed_offset_forgotten;
mod committed_offset_invented;
mod compaction_latest;
mod cycles;
mod dense_offsets;
mod duplicate;
mod idempotent_duplicate;
mod inconsistent_offsets;
mod int_nonmonotonic_poll;
mod int_nonmonotonic_send;
mod int_poll_skip;
mod int_send_skip;
mod lost_write;
mod nonmonotonic_poll;
mod nonmonotonic_send;
mod phantom_read;
mod poll_skip;
mod precommitted_read;
mod producer_fencing;
mod served;
mod unseen;
mod zombie_commit;

type Find = fn(&Facts, &mut Findings);

pub(crate) const ALL: &[Find] = &[
    aborted_read::find,
    bank_sum::find,
    committed_offset_falls::find,
    committed_offset_forgotten::find,
    committed_offset_invented::find,
    compaction_latest::find,
    cycles::find,
    dense_offsets::find,
    duplicate::find,
    idempotent_duplicate::find,
    inconsistent_offsets::find,
    int_nonmonotonic_poll::find,
    int_nonmonotonic_send::find,
    int_poll_skip::find,
    int_send_skip::find,
    lost_write::find,
    nonmonotonic_poll::find,
    nonmonotonic_send::find,
    phantom_read::find,
    poll_skip::find,
    precommitted_read::find,
    producer_fencing::find,
    unseen::find,
    zombie_commit::find,
];
