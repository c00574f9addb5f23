//! [`Transactions`]: what handlers call. Finds the partition of a transactional id where this node leads it, and has its ids aborted
//! and forgotten when their time has come.
//!
//! May not know: wire versions, Raft, what a transition does.

use std::future::Future;
use std::sync::{Arc, Weak};

use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_protocol::ids::ProducerId;

use super::error::TransactionError;
use super::led_partition::{Changed, LedPartition};
use super::partitions::Partitions;
use super::patience::Patience;
use super::settings::TransactionSettings;
use super::sweep;
use super::transaction_log::TransactionLog;
use super::transitions::{self, Init, Producer, Refusal, Transition};
use crate::coordinator::by_leadership::ByLeadership;
use crate::coordinator::topic_log::partition_for;
use crate::replicated::transaction::TransactionValue;

#[derive(Debug)]
struct Shared {
    settings: TransactionSettings,
    log: Arc<dyn TransactionLog>,
    partitions: ByLeadership<Arc<LedPartition>>,
}

/// The coordinator of this node's transactional ids. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transactions(Arc<Shared>);

/// A handle that does not keep the coordinator.
#[derive(Debug, Clone)]
pub(super) struct WeakTransactions(Weak<Shared>);

impl WeakTransactions {
    pub(super) fn upgrade(&self) -> Option<Transactions> {
        self.0.upgrade().map(Transactions)
    }
}

/// A transactional id as its coordinator has it.
pub type Described = Arc<TransactionValue>;

impl Transactions {
    /// Starts coordinating the transactional ids of all partitions that this node leads.
    #[must_use]
    pub fn new(settings: TransactionSettings, log: Arc<dyn TransactionLog>) -> Self {
        let shared = Arc::new(Shared { settings, log, partitions: ByLeadership::default() });
        rt::spawn_critical("transactions", Owner::process(), watch_leadership(Arc::downgrade(&shared)));
        rt::spawn_critical("transaction-time-outs", Owner::process(), sweep_all(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// The partition of `__transaction_state` that keeps this id; its leader is the id's coordinator.
    #[must_use]
    pub fn coordinator_partition(&self, id: &str) -> i32 {
        partition_for(id, self.0.log.topic().partition_count())
    }

    pub(super) fn downgrade(&self) -> WeakTransactions {
        WeakTransactions(Arc::downgrade(&self.0))
    }

    /// Stops coordinating.
    pub fn stop(&self) {
        self.0.partitions.stop();
    }

    /// InitProducerId: the producer that has the id from now on. CONCURRENT_TRANSACTIONS while what the id had is being ended.
    pub async fn init(&self, id: &str, asked: Init) -> Result<Producer, TransactionError> {
        let bounds = 1..=self.0.settings.timeout_ms_max;
        if !bounds.contains(&i64::from(asked.timeout_ms)) {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        let decide =
            move |current: Option<&TransactionValue>, fresh, now_ms| transitions::init(current, asked, fresh, now_ms);
        let (partition, id) = (self.led(id).await?, Arc::from(id));
        let mut patience = Patience::new(partition.clone(), Arc::clone(&id));
        loop {
            patience.attempt();
            let outcome = match self.change(&partition, &id, decide).await {
                Ok(Changed::To(value) | Changed::Nothing(value)) => {
                    Ok(Producer { id: value.producer_id, epoch: value.epoch })
                }
                Ok(Changed::AbortsFirst) => Err(TransactionError::ConcurrentTransactions),
                Ok(Changed::Removed) => Err(TransactionError::Internal),
                Err(error) => Err(error),
            };
            if !patience.again(&outcome).await {
                return outcome;
            }
        }
    }

    /// AddPartitionsToTxn: the partitions belong to the producer's transaction, which begins with the first of them.
    pub async fn add(
        &self,
        id: &str,
        producer: Producer,
        added: Partitions,
        client_version: i16,
    ) -> Result<(), TransactionError> {
        let (partition, id) = (self.led(id).await?, Arc::from(id));
        let decide = |current: Option<&TransactionValue>, now_ms| {
            Ok(transitions::add(current, producer, &added, client_version, now_ms)?)
        };
        let mut patience = Patience::new(partition.clone(), Arc::clone(&id));
        loop {
            patience.attempt();
            let outcome = self.within(partition.change(&id, decide)).await.map_err(refused);
            if patience.again(&outcome).await {
                continue;
            }
            return match outcome? {
                Changed::To(_) => Ok(()),
                // They are there: unless another coordinator has ended the transaction.
                Changed::Nothing(_) => self.within(partition.confirm()).await,
                Changed::AbortsFirst | Changed::Removed => Err(TransactionError::Internal),
            };
        }
    }

    /// For each of the partitions whether it belongs to the producer's open transaction.
    pub async fn verify(
        &self,
        id: &str,
        producer: Producer,
        asked: &[(Arc<str>, i32)],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let partition = self.led(id).await?;
        let current = partition.store().lock().get(id).cloned();
        self.within(partition.confirm()).await?;
        let one = |(topic, index): &(Arc<str>, i32)| transitions::verify(current.as_deref(), producer, topic, *index);
        Ok(asked.iter().map(one).collect())
    }

    /// EndTxn: the transaction is committed or aborted, and its markers are on their way. `bumps`: the request is of version 5 or
    /// later. Returns the producer of the next transaction.
    pub async fn end(
        &self,
        id: &str,
        producer: Producer,
        commits: bool,
        bumps: bool,
    ) -> Result<Producer, TransactionError> {
        let decide = move |current: Option<&TransactionValue>, fresh, now_ms| {
            transitions::end(current, producer, commits, bumps, fresh, now_ms)
        };
        match self.change(&self.led(id).await?, &Arc::from(id), decide).await? {
            Changed::To(value) | Changed::Nothing(value) => Ok(transitions::next_producer(&value)),
            Changed::AbortsFirst | Changed::Removed => Err(TransactionError::Internal),
        }
    }

    /// DescribeTransactions: one id; none if there is no such id.
    pub async fn describe(&self, id: &str) -> Result<Option<Described>, TransactionError> {
        let partition = self.led(id).await?;
        let current = partition.store().lock().get(id).cloned();
        self.within(partition.confirm()).await?;
        Ok(current)
    }

    /// ListTransactions: all ids that this node coordinates.
    #[must_use]
    pub fn list(&self) -> Vec<(Arc<str>, Described)> {
        let led = self.0.partitions.all().into_iter().filter(|led| led.is_led());
        let ids = |led: Arc<LedPartition>| {
            let store = led.store().lock();
            store.iter().map(|(id, value)| (id.clone(), value.clone())).collect::<Vec<_>>()
        };
        led.flat_map(ids).collect()
    }

    /// Decides what becomes of an id, with a new producer id if that is needed.
    async fn change(
        &self,
        partition: &Arc<LedPartition>,
        id: &Arc<str>,
        decide: impl Fn(Option<&TransactionValue>, Option<ProducerId>, i64) -> Result<Transition, Refusal>,
    ) -> Result<Changed, TransactionError> {
        let change = |fresh| {
            let decide = &decide;
            self.within(partition.change(id, move |current, now_ms| decide(current, fresh, now_ms)))
        };
        match change(None).await {
            Err(Refusal::NeedsProducerId) => {
                let fresh = self.0.log.new_producer_id().await.ok_or(TransactionError::CoordinatorNotAvailable)?;
                change(Some(fresh)).await.map_err(refused)
            }
            outcome => outcome.map_err(refused),
        }
    }

    /// Waits for an append as long as a request may.
    async fn within<T, E: From<TransactionError>>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match rt::timeout(self.0.settings.append_timeout, future).await {
            Ok(outcome) => outcome,
            Err(rt::Elapsed) => Err(TransactionError::CoordinatorNotAvailable.into()),
        }
    }

    /// The partition of an id, if this node leads it. Waits for one that is about to be adopted here: the request of its first
    /// client has just created it.
    async fn led(&self, id: &str) -> Result<Arc<LedPartition>, TransactionError> {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let index = self.coordinator_partition(id);
        if let Some(led) = self.0.led(index) {
            return Ok(led);
        }
        self.0.log.topic().wait_until_led(index).await.map_err(|error| TransactionError::from(&error))?;
        self.0.led(index).ok_or(TransactionError::NotCoordinator)
    }
}

fn refused(refusal: Refusal) -> TransactionError {
    match refusal {
        Refusal::Error(error) => error,
        // It was there.
        Refusal::NeedsProducerId => TransactionError::Internal,
    }
}

impl Shared {
    fn led(&self, index: i32) -> Option<Arc<LedPartition>> {
        let by = self.log.topic().leadership(index)?;
        let start = || LedPartition::start(index, by, self.log.clone());
        self.partitions.get_or_start(index, by, |_| true, start)
    }

    /// All partitions that this node leads.
    fn all_led(&self) -> Vec<Arc<LedPartition>> {
        (0..self.log.topic().partition_count()).filter_map(|index| self.led(index)).collect()
    }
}

/// Begins wherever this node becomes leader: what was prepared there goes on though no request comes.
async fn watch_leadership(shared: Weak<Shared>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.log.topic().leadership_changes()) else { return };
    while let Some(shared) = shared.upgrade() {
        shared.all_led();
        drop(shared);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Does now and then what no request asks for, in all partitions that this node leads.
async fn sweep_all(shared: Weak<Shared>) {
    let Some(settings) = shared.upgrade().map(|shared| shared.settings.clone()) else { return };
    let mut next_expiration = rt::now() + settings.expiration_interval;
    loop {
        rt::sleep(settings.abort_interval).await;
        let Some(shared) = shared.upgrade() else { return };
        // Partitions that this node leads no more keep nothing in memory.
        shared.partitions.retain(|led| led.is_led());
        let led = shared.all_led();
        drop(shared);
        let expires = rt::now() >= next_expiration;
        if expires {
            next_expiration = rt::now() + settings.expiration_interval;
        }
        for partition in led {
            sweep::abort_timed_out(&partition).await;
            if expires {
                sweep::forget_unused(&partition, settings.expiration_ms).await;
            }
        }
    }
}
