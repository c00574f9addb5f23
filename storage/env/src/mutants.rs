//! Seeded bugs (mutants) that the simulation must catch, each in the production path in which it would be made.
//!
//! The production code calls [`is_on`]. Without the feature `mutants` that is the constant `false`, and no bug is compiled
//! in; with it one bug at a time is switched on for a thread, since a simulated world is one thread. The pools of a real
//! disk are other threads, where no bug is on. May not know: what a bug does, and which test looks for it.
//!
//! Cannot exist yet, with what they need:
//! - transactions: an open one removed by compaction;
//! - membership: a learner counted in the quorum: openraft counts, not we. A prior term's entry committed by counting:
//!   openraft counts, not we;
//! - segment files that are used again: frames of an older incarnation accepted, since none ever lie in a file;
//! - leases: none are used, so none can stand on the wall clock.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` is for tests only: build with debug assertions (profile `dev` or `sim`)");

macro_rules! bugs {
    ($($bug:ident $name:literal: $about:literal,)+) => {
        /// A seeded bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $(#[doc = $about] $bug,)+
        }

        impl Bug {
            /// All of them, from the disk upwards.
            pub const ALL: &'static [Self] = &[$(Self::$bug,)+];

            /// Its name, as commands take it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What is wrong, and where.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$bug => $about,)+
                }
            }
        }
    };
}

bugs! {
    // Tasks.
    CriticalPanicSwallowed "critical-panic-swallowed":
        "A critical task that panics is gone, and what it belongs to goes on without it (spawn_critical).",
    // The log's writer.
    AckBeforeSync "ack-before-sync":
        "A commit's frames are answered when they are written, and synced only afterwards (log writer).",
    CommitNotSynced "commit-not-synced":
        "Commits are answered without a sync, as if they had been synced (log writer).",
    SyncErrorIgnored "sync-error-ignored":
        "A failed sync counts as a sync (log writer).",
    SegmentTableWrong "segment-table-wrong":
        "A segment's table lists only the replicas of the last commit before it (log writer).",
    VoteNotPersisted "vote-not-persisted":
        "A vote is kept in memory and never written (replica's log).",
    VoteNotSynced "vote-not-synced":
        "A vote is answered before its frame is written and synced (replica's log).",
    TruncationBelowCommit "truncation-below-commit":
        "A truncation on disk takes one entry more than Raft asked for (replica's log).",

    // Recovery of the log.
    TornTailAccepted "torn-tail-accepted":
        "The front of a commit that was cut short counts, though records in it are torn (recovery).",
    CorrectionNotWritten "correction-not-written":
        "A byte of a frame that the frame's checksum corrects stays on the disk as it is (recovery).",
    FrameCrcNotChecked "frame-crc-not-checked":
        "A frame counts whatever its checksum says (recovery).",
    CrcFailureSkipped "crc-failure-skipped":
        "Records that fail their checksum are taken for sound, in recovery and when they are read.",
    FrameAfterDamageAccepted "frame-after-damage-accepted":
        "Frames behind a damaged one of the same commit count, and the gap before them is nobody's loss (recovery).",
    PlaceInsteadOfSequence "place-instead-of-sequence":
        "Frames are ordered by their place in the log, not by their replica's sequence number (recovery).",
    UnsyncedBytesBelieved "unsynced-bytes-believed":
        "What a killed process wrote and never synced counts as durable at once (recovery).",
    CachedPagesBelieved "cached-pages-believed":
        "Pages are read from the cache although a failed sync may never have written them (recovery).",
    TornTailLeft "torn-tail-left":
        "A torn tail is left where it is, and the log goes on behind it (recovery). Not to overwrite it with zeros does no \
         harm alone: with one commit in flight, the next one is written over its beginning.",
    TruncatedEntriesComeBack "truncated-entries-come-back":
        "Truncations are passed over when the log is read back (recovery).",
    RemovedReplicaComesBack "removed-replica-comes-back":
        "The removal of a replica is passed over when the log is read back (recovery).",

    // The data directory: checkpoint, verdicts, unlinking, the rewriter, the index, reads.
    CheckpointPastSynced "checkpoint-past-synced":
        "A replica is cut for the checkpoint beyond what its own log has synced, and its verdicts are not waited for, which \
         would make everything before them durable (applier, data directory).",
    CheckpointCrcNotChecked "checkpoint-crc-not-checked":
        "A transaction of the checkpoint counts whatever its checksum says.",
    VerdictsNotWritten "verdicts-not-written":
        "A checkpoint passes entries whose verdicts are not in the log.",
    VerdictFramesUnlinked "verdict-frames-unlinked":
        "A segment is unlinked although verdicts in it are on live batches elsewhere.",
    SegmentUnlinkedEarly "segment-unlinked-early":
        "A segment is unlinked although the older generation of the checkpoint needs it.",
    RewrittenUnlinkedEarly "rewritten-unlinked-early":
        "A rewritten segment is unlinked although the older generation of the checkpoint still reads it.",
    RunUnlinkedEarly "run-unlinked-early":
        "A run is unlinked although the older generation of the checkpoint still lists it.",
    RunNotSynced "run-not-synced":
        "A run is made real in the checkpoint before its batches are synced (rewriter).",
    ImportNotSynced "import-not-synced":
        "A snapshot is made real in the checkpoint before its runs are synced (import).",
    GapFilledEarly "gap-filled-early":
        "Offsets that the index lacks are fetched from other replicas before the log is applied again (repair).",
    IndexCrcNotChecked "index-crc-not-checked":
        "A line of an index file counts whatever its checksum says.",
    HwBeforeIndex "hw-before-index":
        "The high watermark is shown while the index lacks batches that are committed and not yet durable here.",
    FetchSkipsABatch "fetch-skips-a-batch":
        "A read that begins at the last record of a batch begins with the next batch (index).",
    EpochNotPatched "epoch-not-patched":
        "Batches leave with the leader epoch that their producer wrote (reads).",

    // Raft.
    LeaderRestoredFromVote "leader-restored-from-vote":
        "A leader that restarts goes on in its old term.",
    FollowerAcksBeforeSync "follower-acks-before-sync":
        "A follower answers an append before its log has synced it (log store).",
    AckBeforeQuorum "ack-before-quorum":
        "An append that gets no answer counts as accepted by that follower (transport).",
    AppendAcknowledgedTwice "append-acknowledged-twice":
        "The response to an append acknowledges the next one in flight, too (append pipeline).",
    ApplyBeforeCommit "apply-before-commit":
        "A follower takes everything it is sent for committed (transport).",
    ServeBeforeOwnTerm "serve-before-own-term":
        "A new leader serves before it has applied an entry of its own term (role).",
    StaleLeaderServes "stale-leader-serves":
        "A read index asks nobody whether this replica still leads.",
    UnknownProposalRepeated "unknown-proposal-repeated":
        "A proposal that got no answer for 200 ms is proposed again, though its fate is unknown (handle).",
    LostReplicaVotes "lost-replica-votes":
        "A replica that lost what it may have acknowledged takes part under its old id.",
    DamagedRecordsReplicated "damaged-records-replicated":
        "Records that are damaged on the leader's disk are sent to followers (log store).",
    PurgeBeyondCheckpoint "purge-beyond-checkpoint":
        "Entries are purged up to what is applied, not up to what the checkpoint contains (applier).",

    StatePartLost "state-part-lost":
        "Of the later parts of a state that is fetched for a snapshot only the last key is kept (state parts).",
    StateOfTwoPoints "state-of-two-points":
        "Parts of the states at two points are put together (state parts).",

    // The transport between nodes.
    ConnectionNotReopened "connection-not-reopened":
        "A connection to another node that was lost is not opened again (peer connection).",
    ResponsesMixedUp "responses-mixed-up":
        "A response goes to the oldest call of its connection, whatever its number (peer connection).",

    // A shard: what is proposed, applied, published.
    ClockReadAtApply "clock-read-at-apply":
        "Apply goes by the node's own wall clock, not by the entry's (shard state).",
    ConfigReadAtApply "config-read-at-apply":
        "A new topic takes the retention that the applying node is configured with (metadata machine).",
    DedupLostAtRestart "dedup-lost-at-restart":
        "Producers are not read back from the checkpoint (shard machine).",
    DedupLostAtFailover "dedup-lost-at-failover":
        "A new term forgets all producers (shard state).",
    DuplicateWrongOffset "duplicate-wrong-offset":
        "A retry is answered with the offset that it would get now (shard state).",
    DuplicateTakesOffsets "duplicate-takes-offsets":
        "A retry that is not appended takes offsets all the same (shard state).",
    OldEpochAccepted "old-epoch-accepted":
        "A batch of a producer's older epoch is appended (producer state).",
    EarlySequenceVerdict "early-sequence-verdict":
        "A batch is refused as out of order before it is proposed, by what is applied at that moment (partition).",
    RefusalsForgotten "refusals-forgotten":
        "Batches behind a refused one of their producer are let through (queue).",
    FormerLeaderForgotten "former-leader-forgotten":
        "A new leader answers a gap as out of order though what is missing was sent to the former one (shard).",
    SplitLosesProducers "split-loses-producers":
        "The child of a split does not take what is known of producers (shard state).",
    SplitTwice "split-twice":
        "A split is proposed again, and carried out again, until it is reported (splits, shard state).",
    SplitReportedEarly "split-reported-early":
        "A split is reported as done before the shard's log has it (splits).",
    SplitDropForgotten "split-drop-forgotten":
        "The child of a split keeps partitions of a topic that was deleted during the split (metadata).",
    ChildTermBegunAnew "child-term-begun-anew":
        "The terms of a split's child begin at 0, so that leader epochs fall (split).",
    ChildCreatedEarly "child-created-early":
        "A replica of a split's child is created empty though its parent here has not come to the split (shards).",
    ChildSeedNotAwaited "child-seed-not-awaited":
        "After a crash nobody knows that a split's child was created and waits for its state (shards).",
    SplitCutTwice "split-cut-twice":
        "A checkpoint takes the parent past a split before the child is durable (applier).",
    MergeLosesProducers "merge-loses-producers":
        "The shard that takes over another one does not take what is known of producers (shard state).",
    MergeEpochFalls "merge-epoch-falls":
        "The shard that takes over another one goes on with its epoch bases (shard state).",
    SealedAppends "sealed-appends":
        "A shard that is sealed for a merge still changes (shard state).",
    SealedLogPurged "sealed-log-purged":
        "A shard that is sealed for a merge purges what a member lacks, which is given what is left of the shard (shards).",
    SealReportedEarly "seal-reported-early":
        "A merge begins before all members of the absorbed shard have its Seal (merges).",
    AbsorbReportedEarly "absorb-reported-early":
        "A shard that was absorbed is removed while a replica beside it has not taken it over (shards).",
    MergeCutTwice "merge-cut-twice":
        "Checkpoints take the two states of a merge one by one (applier).",
    BatchesSwapped "batches-swapped":
        "Two batches of a partition in one entry change places (queue).",
    AnsweredOutOfOrder "answered-out-of-order":
        "Of two entries in flight the callers of the second one are answered first (proposal window).",
    AdoptRevivesDropped "adopt-revives-dropped":
        "An old Adopt revives a partition that was dropped since (shard state).",
    EpochHistoryLost "epoch-history-lost":
        "The leader epochs of partitions are not read back from the checkpoint (shard machine).",
    LogStartLostAtRestart "log-start-lost-at-restart":
        "Log starts are not read back from the checkpoint (shard machine).",
    LogStartNotCarried "log-start-not-carried":
        "The leader moves log starts in its own state and proposes nothing (retention).",
    ClockJumpExpires "clock-jump-expires":
        "A jump of the leader's wall clock is believed at once (shard clock).",
    FirstClockBelieved "first-clock-believed":
        "A shard expires by its first leader's wall clock, which nobody has confirmed, and later by whatever is applied (shard clock).",
    HwOneTooHigh "hw-one-too-high":
        "Readers are shown a high watermark one above what is applied (shard machine).",
    LsoOneTooLow "lso-one-too-low":
        "Readers of committed records are shown an end one too low (shard machine).",
    JoinerNotIntroduced "joiner-not-introduced":
        "A node that joins is told of the replicas that founded the metadata group only (seeds).",
    LeaderNotLocated "leader-not-located":
        "A node whose metadata does not have the group's new leader yet never learns where that is (leader locator).",
    LocatedWithoutMetadata "located-without-metadata":
        "A node that has no metadata yet answers that another one has no replica of it (bootstrap service).",
    WipedReplicaVotes "wiped-replica-votes":
        "A replica whose directory is gone is made anew, empty, under its old id (shards).",

    SnapshotWithoutProducers "snapshot-without-producers":
        "A replica that takes a snapshot knows none of its producers (shard machine).",

    // What clients send and read.
    RecompressedCrcKept "recompressed-crc-kept":
        "A batch that is recompressed keeps the checksum that its producer wrote (validate).",
    CompressedStaysCompressed "compressed-stays-compressed":
        "A batch that is compressed already is stored with its producer's codec, not its topic's (validate).",
    NearestInAnyRack "nearest-in-any-rack":
        "A consumer is sent to a replica in any rack (replica selector).",
    MinIsrNotAwaited "min-isr-not-awaited":
        "A batch is acknowledged when a majority has it, whatever min.insync.replicas says (appender).",
    MinIsrOneEntryEarly "min-isr-one-entry-early":
        "A batch is acknowledged when enough replicas have the entry before it (min.insync.replicas).",
    FollowerOutOfRange "follower-out-of-range":
        "A follower answers that what it has not applied yet is out of range (fetch).",

    // Several data directories.
    FirstDirectoryTaken "first-directory-taken":
        "A replica is made in a node's first data directory, whatever the metadata records (shards).",
    FullestDirectoryTaken "fullest-directory-taken":
        "A new replica is placed in the directory that holds most already (placement).",

    // Static members.
    StaticRejoinRebalances "static-rejoin-rebalances":
        "A static member that comes back lets its group rebalance (join).",
    ReplacedMemberUnknown "replaced-member-unknown":
        "A static member whose place another process has taken is told that it is unknown (group).",

    // Topics with another number of replicas than the default.
    PlacedOnOneLess "placed-on-one-less":
        "A shard is placed on one node less than its topic asks for, but on one (placement).",
    FactorForgotten "factor-forgotten":
        "A topic that is to have one replica has the default (decide).",

    // Disks that stall.
    StalledFollowerSuspects "stalled-follower-suspects":
        "A follower has heard of its leader when what the leader sent is durable (host).",
    StalledLeaderSilent "stalled-leader-silent":
        "A leader whose heartbeats are not answered does not ask whether it is followed (check quorum).",

    // Connections.
    AnswersSwapped "answers-swapped":
        "The second answer of a connection leaves before the first (connection).",

    // Starting, joining and leaving: bugs of releases before 0.5.0.
    RemovalNotDetected "removal-not-detected":
        "A node that was unregistered while it was down waits for a leader (removal detector).",
    LoneFounderWaitsToLead "lone-founder-waits-to-lead":
        "A node that founded its cluster alone starts only when it leads the metadata itself (start).",
    LeftNodeFounds "left-node-founds":
        "A node that was unregistered and started again founds a cluster of its own (services).",
    RegisteredWhileLeaving "registered-while-leaving":
        "A node that is being forgotten is registered again (registration).",
    LevelNeedsAllFounders "level-needs-all-founders":
        "A cluster whose first shards are made before its last founder has joined stays at level 1 (features).",
    LevelRaisedEarly "level-raised-early":
        "The feature level is raised while a registered node does not understand it (features, metadata machine).",
    FencedBelowLevel "fenced-below-level":
        "Nodes are fenced at a level at which a node of the release before cannot read it (fencing).",
    UnregisteredStartWaits "unregistered-start-waits":
        "A node that was unregistered before it had kept anything waits for the cluster's id (services).",
    RemovalsNotAwaited "removals-not-awaited":
        "A stop does not wait until replicas that are being removed are gone (node).",

    // Readers, groups, metadata.
    FalseOutOfRange "false-out-of-range":
        "An offset above the high watermark is out of range without a read index (fetch).",
    UnknownOffsetAsZero "unknown-offset-as-zero":
        "An offset that is not known is answered as 0 (OffsetFetch, ListOffsets).",
    SessionMissesChanges "session-misses-changes":
        "A fetch session forgets what changes while nobody waits for it (watch).",
    OffsetCommitAckedEarly "offset-commit-acked-early":
        "An offset commit is answered when it is enqueued, not when it is applied (group owner).",
    ZombieCommits "zombie-commits":
        "An offset commit of an older generation is accepted, now and at apply (group, group store).",
    MembershipAnsweredEarly "membership-answered-early":
        "Members are told of a generation before its record is applied (group owner).",
    GenerationLostAtFailover "generation-lost-at-failover":
        "A group's generation begins anew at a new coordinator (group, group store).",
    GroupOffsetsLostAtCheckpoint "group-offsets-lost-at-checkpoint":
        "What changed in groups is not cut for the checkpoint (shard machine).",
    ExpiryRemovesNewerCommit "expiry-removes-newer-commit":
        "Expiry removes an offset that was committed after its cutoff (group store).",
    ProducerIdsGivenTwice "producer-ids-given-twice":
        "The next producer id is not cut for the checkpoint (metadata machine).",
    TopicAckedEarly "topic-acked-early":
        "A change of the metadata is answered before it is committed (metadata writer).",
    SessionNeverExpires "session-never-expires":
        "A node's session lasts for ever, whatever becomes of the node (metadata sessions).",
    IntentEndedEarly "intent-ended-early":
        "An intent is reported as done before the shard has carried it out (adoption).",

    BesideNotRecorded "beside-not-recorded":
        "A replica that is made beside another one, in another data directory, does not record that it was there (shard manager).",

    // Transactions.
    LateBatchOpens "late-batch-opens":
        "A batch opens a transaction though another has ended since its leader asked the coordinator (shard state).",
    OldCoordinatorMarker "old-coordinator-marker":
        "A marker of an older coordinator is applied (transactions).",
    MarkerEndsNextTransaction "marker-ends-next-transaction":
        "A marker that is sent again ends the transaction that its producer has begun since (transactions).",
    AbortedNotListed "aborted-not-listed":
        "Aborted transactions that began before the offset of a fetch are not listed (transactions).",
    ReadAboveLastStable "read-above-last-stable":
        "Readers of committed data are given records up to the high watermark (partition handle).",
    OffsetsVisibleBeforeMarker "offsets-visible-before-marker":
        "Offsets of a transaction are visible when they are applied, not when its marker is (group store).",
    AbortedOffsetsCommitted "aborted-offsets-committed":
        "Offsets of a transaction become visible though it is aborted (group store).",
    UnstableOffsetsAnswered "unstable-offsets-answered":
        "A client that asks for stable offsets is not told that some are not (group store).",
    TransactionNotAskedAgain "transaction-not-asked-again":
        "A batch is refused for good if its leader took its transaction for open and it is not (produce).",
    LevelNotConfirmed "level-not-confirmed":
        "A node that has not applied that the level was raised refuses transactions for good (transaction error).",
    EndAnsweredEarly "end-answered-early":
        "A transition of a transactional id is answered when it is enqueued, not when it is applied (led partition).",
    PreparedNotCompleted "prepared-not-completed":
        "A coordinator that takes over leaves alone what its predecessor has prepared (led partition).",
    AnyPreparedCompleted "any-prepared-completed":
        "Whoever writes the markers of a transaction goes on when its id has prepared another one, and completes that (led partition).",
    EarlyProducerFenced "early-producer-fenced":
        "A producer is fenced that goes on before the markers of its last transaction are written (transitions).",
    MarkersNotRetried "markers-not-retried":
        "A transaction is complete though some of its markers were not written (led partition).",

    // Compaction.
    LastValueCompacted "last-value-compacted":
        "A pass drops the last record of a key, too (keeper).",
    TombstoneGoesAtOnce "tombstone-goes-at-once":
        "A pass drops the tombstones of the keys whose values it drops (keeper).",
    PassesMixed "passes-mixed":
        "What lies below a horizon is taken from replicas that have compacted it differently far (import).",
    GoneMarkersListed "gone-markers-listed":
        "Readers of committed data are told of aborted transactions whose markers a pass has dropped (fetch).",
}

impl Bug {
    /// The bug of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

impl std::fmt::Display for Bug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    use super::Bug;

    /// True if the bug is switched on: never, in a build without seeded bugs.
    #[must_use]
    #[inline(always)]
    pub const fn is_on(_bug: Bug) -> bool {
        false
    }

    pub(crate) const fn of_next_world() -> Option<Bug> {
        None
    }

    pub(crate) const fn enter_world(_bug: Option<Bug>) {}
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    /// Names the bug of every simulated world of the process, unless one was switched on before it.
    const VARIABLE: &str = "OTTLA_MUTANT";

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// True if the bug is switched on in this thread.
    #[must_use]
    pub fn is_on(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// Switches one bug on, or all off, for this thread and the simulated worlds that it starts from now on.
    pub fn switch_on(bug: Option<Bug>) {
        ON.set(bug);
    }

    /// The bug of a world that this thread starts.
    pub(crate) fn of_next_world() -> Option<Bug> {
        ON.get().or_else(|| {
            let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
            Some(Bug::named(&name).unwrap_or_else(|| panic!("{VARIABLE}={name}: no bug has that name")))
        })
    }

    pub(crate) fn enter_world(bug: Option<Bug>) {
        switch_on(bug);
    }
}

pub use switch::is_on;
#[cfg(feature = "mutants")]
pub use switch::switch_on;
pub(crate) use switch::{enter_world, of_next_world};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found_again() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(*bug));
            assert!(bug.name().bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()), "{bug}");
            assert!(bug.about().ends_with('.'), "{bug}");
        }
        assert_eq!(Bug::named("no-such-bug"), None);
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_no_bug_is_ever_on() {
        const { assert!(!is_on(Bug::AckBeforeSync)) };
        assert!(Bug::ALL.iter().all(|bug| !is_on(*bug)));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn one_bug_is_on_in_the_thread_that_asked_and_in_its_worlds() {
        use crate::sim;
        let on = || Bug::ALL.iter().copied().filter(|bug| is_on(*bug)).collect::<Vec<_>>();
        switch_on(Some(Bug::VoteNotSynced));
        assert_eq!(on(), [Bug::VoteNotSynced]);
        assert_eq!(sim::run(1, async move || on()).output, [Bug::VoteNotSynced]);
        switch_on(None);
        assert_eq!(on(), []);
    }
}
