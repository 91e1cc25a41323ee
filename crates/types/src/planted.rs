//! Bugs planted on purpose, to show that the checks of the simulator, and of sequences of commands, can fail.
//!
//! Only with the feature `planted`, which no binary of ours has, can one be switched on; otherwise the switch is
//! always off, and the compiler leaves nothing of it.

/// A rule that is broken on purpose, where its code asks [`is`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A write is acknowledged before its backups hold it (rule 1).
    AcknowledgesEarly,
    /// A joiner does not count before its joining is proposed (rule 2).
    JoinerNotCounted,
    /// What an earlier start of a copy said it held is believed of the next (rule 3).
    BelievesOldIncarnation,
    /// A backup takes records of an older epoch (rule 4).
    TakesOldEpoch,
    /// A primary reads without a lease (rule 5).
    ReadsWithoutLease,
    /// A voter reports a node before the grace is over (rule 6).
    ReportsEarly,
    /// A voter goes on granting to a node that it has reported (rule 6).
    GrantsAfterReport,
    /// A copy is promoted that was not in sync (rule 7).
    PromotesOutsider,
    /// A promoted backup drops what it does not know to be committed (rule 8).
    DropsTail,
    /// A backup applies what is not committed (rule 13).
    AppliesEarly,
    /// A restarted copy keeps its seat though its log may lack what it acknowledged (rule 3).
    KeepsLostSeats,
    /// A copy counts what it has not synced as durable (rule 1).
    AcknowledgesUnsynced,
    /// A snapshot on disk claims to hold one record more than it shows.
    SnapshotAhead,
    /// A forwarded write is run again when it comes again (rule 17).
    RunsAgain,
    /// A copy that is to leave goes before the one that takes its place is in sync (rule 11).
    DropsBeforeFilled,
    /// A primary serves on after it has released its partition to another (rule 10).
    ServesAfterRelease,
    /// A voter reports at once whom it has not heard since the voters changed, and what was reported before still counts (rule 6).
    NewVotersReportAtOnce,
    /// The map forgets the old voters as soon as there are new ones, while the consensus group still counts both (rule 6).
    ForgetsOldVoters,
    /// A node that is about to stop, and has handed over, is given seats again (rule 10).
    GivesToStopping,
    /// A transfer goes on one chunk too far after a break (rule 9).
    ResumesTooFar,
    /// The cluster's feature level rises before all members have it.
    RaisesEarly,
    /// What comes with a feature level is used before the cluster has it.
    UsesEarly,
    /// Whoever follows a partition's changes is shown what is not committed.
    ShowsUncommitted,
    /// A copy takes all that was ever committed as applied: whatever it shows is of this moment (rule 13).
    BelievesUnapplied,
    /// What is asked of several keys of one partition is asked of each by itself (rule 18).
    TearsApart,
    /// A write over an expected value writes over any other, too.
    SetsUnequal,
    /// A reign opens with the time of its own clock, whatever the last record's was (rule 14).
    ReignRunsTimeBack,
    /// A stale read shows what is not committed.
    StaleShowsUncommitted,
    /// A shard's log does not sync its directory after it has made a segment.
    SkipsDirSync,
    /// A shard's log takes a failed sync for one that may be tried again.
    RetriesAfterFailedSync,
    /// A shard's log goes on before a torn tail without cutting it off.
    ResurrectsTail,
    /// A shard's log gives a segment its name before all of the one before is durable.
    NamesBeforeSync,
    /// A shard's log counts as durable what a sync has only begun with.
    CountsBeforeSync,
    /// A copy that is to leave does not count any more as soon as that is proposed (rule 2).
    LeaverNotCounted,
    /// A change whose outcome is not known is taken for one that failed (rule 2).
    UnknownIsFailed,
    /// A change of an in-sync set is made whatever has changed since it was asked for (rule 3).
    ChangesAtAnyEpoch,
    /// A returning copy keeps what an earlier primary logged where this one's records should stand (rule 9).
    KeepsOldTail,
    /// A voter counts the grace from before its own start: it has forgotten whom it granted what (rule 6).
    ForgetsGrants,
    /// A start does not miss a snapshot that is gone with the log before it (rule 3).
    MissesNoSnapshot,
    /// GETEX with a time takes the value away.
    GetexTakesValue,
    /// RENAME leaves the time to live behind.
    RenameLeavesLifetime,
    /// SET with KEEPTTL keeps none where it also stores only what is there already.
    KeepTtlForgetsUnderXx,
    /// SETRANGE cuts off what stands behind the part.
    SetRangeCutsTail,
    /// A key is shown in the very millisecond at which it ends (rule 14).
    ExpiresLate,
    /// An effect forgets when the key ends, so that backups keep it for ever.
    EffectForgetsExpiry,
    /// What a change of a key's end replaced is not kept, and so not restored.
    UndoForgetsExpiry,
    /// Of a full chunk of a snapshot the last key is left out.
    ChunkDropsLast,
    /// A search for a line's end that goes on when more has come passes over a byte.
    SkipsWhatComesNext,
    /// A request may have any number of arguments.
    TakesAnyArguments,
    /// Room is made for a frame of a peer as soon as its length is there.
    ReservesDeclaredFrame,
    /// A request at the line port that is whole may have any length.
    TakesAnyLine,
}

/// Every planted bug that the simulation of clusters has to find.
pub const BUGS: [Bug; 28] = [
    Bug::AcknowledgesEarly,
    Bug::JoinerNotCounted,
    Bug::BelievesOldIncarnation,
    Bug::TakesOldEpoch,
    Bug::ReadsWithoutLease,
    Bug::ReportsEarly,
    Bug::GrantsAfterReport,
    Bug::PromotesOutsider,
    Bug::DropsTail,
    Bug::AppliesEarly,
    Bug::KeepsLostSeats,
    Bug::AcknowledgesUnsynced,
    Bug::RunsAgain,
    Bug::SnapshotAhead,
    Bug::DropsBeforeFilled,
    Bug::ServesAfterRelease,
    Bug::GivesToStopping,
    Bug::ResumesTooFar,
    Bug::RaisesEarly,
    Bug::UsesEarly,
    Bug::NewVotersReportAtOnce,
    Bug::ForgetsOldVoters,
    Bug::ShowsUncommitted,
    Bug::BelievesUnapplied,
    Bug::TearsApart,
    Bug::SetsUnequal,
    Bug::ReignRunsTimeBack,
    Bug::StaleShowsUncommitted,
];

/// Every planted bug that the crash tests of a shard's log have to find.
pub const LOG_BUGS: [Bug; 5] = [
    Bug::SkipsDirSync,
    Bug::RetriesAfterFailedSync,
    Bug::ResurrectsTail,
    Bug::NamesBeforeSync,
    Bug::CountsBeforeSync,
];

/// Every planted bug that sequences of commands have to find, held against a model of Redis.
pub const COMMAND_BUGS: [Bug; 8] = [
    Bug::GetexTakesValue,
    Bug::RenameLeavesLifetime,
    Bug::KeepTtlForgetsUnderXx,
    Bug::SetRangeCutsTail,
    Bug::ExpiresLate,
    Bug::EffectForgetsExpiry,
    Bug::UndoForgetsExpiry,
    Bug::ChunkDropsLast,
];

/// Every planted bug that the corpora of the fuzzers have to find, and mutations of them: what strangers and peers send.
pub const WIRE_BUGS: [Bug; 4] =
    [Bug::SkipsWhatComesNext, Bug::TakesAnyArguments, Bug::ReservesDeclaredFrame, Bug::TakesAnyLine];

/// Planted bugs that only the model checker is asked to find, beside some of those above.
pub const MODEL_BUGS: [Bug; 5] = [
    Bug::LeaverNotCounted,
    Bug::UnknownIsFailed,
    Bug::ChangesAtAnyEpoch,
    Bug::KeepsOldTail,
    Bug::ForgetsGrants,
];

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or none any more.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// No.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
