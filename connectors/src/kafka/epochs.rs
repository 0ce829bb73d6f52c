//! Exactly-once into a topic: an epoch is a transaction, and the transaction carries the epoch's number.
//!
//! What belongs to an epoch, whole ticks, waits here until the epoch is committed; then it goes out in one transaction. In the same
//! transaction the number is committed as the offset of a consumer group of our own, which is named as the transactional id. So
//! whoever opens the topic again knows exactly what its readers have: [`ChangeSink::committed`] is that number, and what is
//! written to that epoch or one before it is left out.
//!
//! *Guarantee*: readers with `isolation.level` = `read_committed` see whole epochs, each once, in order. Opening ends the
//! transaction that an earlier writer may have left, and shuts that writer out. That a job does not compute an epoch anew under
//! another number is the job's to see to: without durable state it begins again, and so do its results.
//!
//! *State*: the messages of one epoch; it is due after 200 ms, or with 16 MiB.
//!
//! *Limits*: brokers forget the offsets of a group that is idle for longer than their `offsets.retention.minutes`, 7 days by
//! default. A transaction that outlives `properties.transaction.timeout.ms` is aborted by its broker, e.g. because it was away for so
//! long: the epoch is then sent again, unless it turns out to be committed.

use std::time::{Duration, Instant};

use deltaworks_dataflow::changelog::Changes;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;

use super::client::{Connection, Watch, connect, settled};
use super::messages::{Batch, Encoder};
use super::producer::{LAST, Outgoing, Patience, consumer};
use super::sink::Caller;
use crate::error::{Error, Result};
use crate::sink::ChangeSink;

/// How long the client tries before it says how it stands.
const STEP: Duration = Duration::from_secs(1);
/// How long brokers may take to end what an earlier writer left.
const OPENING: Duration = Duration::from_secs(30);
/// When an epoch is due.
const DUE_AFTER: Duration = Duration::from_millis(200);
const DUE_BYTES: usize = 16 << 20;
/// How long a transaction may last, as the client has it.
const TRANSACTION_TIMEOUT: (&str, u64) = ("transaction.timeout.ms", 60_000);

/// Writes a topic epoch by epoch.
pub(crate) struct Epochs {
    encoder: Encoder,
    connection: Connection,
    id: String,
    caller: Caller,
    outgoing: Outgoing,
    asks: BaseConsumer<Watch>,
    committed: Option<u64>,
    /// The epoch that is open, and since when.
    epoch: Option<(u64, Instant)>,
    batch: Batch,
    timeout: Duration,
    /// How long nothing may move; None while the job runs, which waits as long as brokers are away.
    patience: Option<Duration>,
}

/// How an attempt to commit went wrong.
enum Trouble {
    /// The transaction has to be given up; the epoch can be sent again.
    Abort,
    /// This producer is of no use any more.
    Lost(Error),
    /// Trying again does not help.
    Fails(Error),
}

impl Epochs {
    pub(crate) fn open(connection: &Connection, encoder: Encoder, prefix: &str, caller: Caller) -> Result<Epochs> {
        let id = format!("{prefix}-{}", encoder.topic);
        let mut config = connection.consumer_config();
        config.set("group.id", &id).set("isolation.level", "read_committed");
        let asks = consumer(connection, config, &caller)?;
        connect(connection, &asks, Some(&encoder.topic))?;
        let outgoing = producer(connection, &id, &encoder.topic, &caller)?;
        outgoing.find_topic(connection)?;
        let (name, default) = TRANSACTION_TIMEOUT;
        let timeout = connection.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let mut epochs = Epochs {
            connection: connection.clone(),
            id,
            caller,
            outgoing,
            asks,
            committed: None,
            epoch: None,
            batch: Batch::default(),
            timeout: Duration::from_millis(timeout),
            patience: None,
            encoder,
        };
        epochs.take_over()?;
        Ok(epochs)
    }
    /// Shuts out earlier writers, ends what they left, and learns how far they came.
    fn take_over(&mut self) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = self.outgoing.producer.init_transactions(Timeout::After(STEP)) {
            if !is_retriable(&error) {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                return Err(self.outgoing.failed(code, String::new()));
            }
            if self.caller.stops() {
                return Err(Error::Stopped);
            }
            if start.elapsed() >= OPENING {
                let action = format!("begin writing topic \"{}\" exactly once as \"{}\"", self.encoder.topic, self.id);
                return Err(Error::Kafka { action, reason: error.to_string() });
            }
        }
        self.committed = self.ask_committed()?;
        Ok(())
    }
    fn ask_committed(&self) -> Result<Option<u64>> {
        let asked = self.progress(Offset::Invalid)?;
        let action = || format!("read the last epoch of topic \"{}\"", self.encoder.topic);
        let list = settled(&self.asks, action, |_| self.asks.committed_offsets(asked.clone(), Timeout::After(STEP)))?;
        match list.find_partition(&self.encoder.topic, 0).map(|at| at.offset()) {
            Some(Offset::Offset(epoch)) => Ok(u64::try_from(epoch).ok()),
            _ => Ok(None),
        }
    }
    /// The place of our progress record, which is no offset of any message.
    fn progress(&self, epoch: Offset) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.encoder.topic, 0, epoch);
        added.map_err(|error| self.broken("note an epoch", &error))?;
        Ok(list)
    }
    fn broken(&self, what: &str, error: &KafkaError) -> Error {
        Error::Kafka { action: format!("{what} of topic \"{}\"", self.encoder.topic), reason: error.to_string() }
    }

    /// Sends the open epoch in one transaction, again where that helps.
    fn commit_epoch(&mut self, epoch: u64) -> Result<()> {
        loop {
            let began = Instant::now();
            let attempt = self.attempt(epoch);
            let given_up = matches!(attempt, Err(Trouble::Abort));
            match if given_up { self.abort() } else { attempt } {
                Ok(()) if given_up => {}
                Ok(()) => return Ok(()),
                Err(Trouble::Fails(error)) => return Err(error),
                // Sooner than that it is another writer, with which we would take turns for ever.
                Err(Trouble::Lost(error)) if began.elapsed() < self.timeout => return Err(error),
                Err(Trouble::Lost(_) | Trouble::Abort) => {
                    self.outgoing = producer(&self.connection, &self.id, &self.encoder.topic, &self.caller)?;
                    self.take_over()?;
                    if self.committed.is_some_and(|committed| committed >= epoch) {
                        return Ok(());
                    }
                }
            }
        }
    }
    fn attempt(&mut self, epoch: u64) -> std::result::Result<(), Trouble> {
        let begun = self.outgoing.producer.begin_transaction();
        begun.map_err(|error| self.trouble("begin an epoch", &error))?;
        let batch = std::mem::take(&mut self.batch);
        let sent = self.outgoing.send(&batch);
        self.batch = batch;
        sent.map_err(|error| self.of_record(error))?;
        self.outgoing.drain(self.patience).map_err(|error| self.of_record(error))?;
        let number = i64::try_from(epoch).unwrap_or(i64::MAX);
        let progress = self.progress(Offset::Offset(number)).map_err(Trouble::Fails)?;
        let group = self.asks.group_metadata().ok_or_else(|| {
            Trouble::Fails(self.broken("note an epoch", &KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup)))
        })?;
        self.until_done("note an epoch", |outgoing| note(outgoing, &progress, &group))?;
        self.until_done("commit an epoch", |outgoing| outgoing.producer.commit_transaction(Timeout::After(STEP)))
    }
    /// Takes a step until it is done or cannot be.
    fn until_done(
        &mut self,
        what: &str,
        step: impl Fn(&Outgoing) -> std::result::Result<(), KafkaError>,
    ) -> std::result::Result<(), Trouble> {
        let mut patience = Patience::new();
        while let Err(error) = step(&self.outgoing) {
            if !is_retriable(&error) {
                return Err(self.trouble(what, &error));
            }
            self.outgoing.moment(&mut patience, self.patience).map_err(|error| self.of_record(error))?;
        }
        Ok(())
    }
    fn abort(&mut self) -> std::result::Result<(), Trouble> {
        let mut patience = Patience::new();
        loop {
            let aborted = self.outgoing.producer.abort_transaction(Timeout::After(STEP));
            // Records of the transaction that is given up fail with it.
            let _given_up = self.outgoing.producer.context().take_failure();
            match aborted {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) => {
                    self.outgoing.moment(&mut patience, self.patience).map_err(Trouble::Fails)?;
                }
                Err(error) => return Err(self.trouble("give up an epoch", &error)),
            }
        }
    }
    /// What to do where a step of a transaction failed for good.
    fn trouble(&self, what: &str, error: &KafkaError) -> Trouble {
        let reported = match error {
            KafkaError::Transaction(transaction) if transaction.txn_requires_abort() => return Trouble::Abort,
            other => other,
        };
        match self.outgoing.producer.client().fatal_error() {
            Some((code, _)) => Trouble::Lost(self.outgoing.failed(code, String::new())),
            None => Trouble::Fails(self.broken(what, reported)),
        }
    }
    /// What to do where a record was not taken: only time can have been too short.
    fn of_record(&self, error: Error) -> Trouble {
        match (&error, self.outgoing.producer.client().fatal_error()) {
            (Error::Delivery { timed_out: true, .. }, None) => Trouble::Abort,
            (_, Some(_)) => Trouble::Lost(error),
            _ => Trouble::Fails(error),
        }
    }
}

fn producer(connection: &Connection, id: &str, topic: &str, caller: &Caller) -> Result<Outgoing> {
    let mut config = connection.producer_config();
    config.set("transactional.id", id);
    Outgoing::new(connection, config, topic, caller.clone())
}
fn note(
    outgoing: &Outgoing,
    progress: &TopicPartitionList,
    group: &ConsumerGroupMetadata,
) -> std::result::Result<(), KafkaError> {
    outgoing.producer.send_offsets_to_transaction(progress, group, Timeout::After(STEP))
}
fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(transaction) => transaction.is_retriable(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

impl ChangeSink for Epochs {
    fn write(&mut self, changes: &Changes) -> Result<()> {
        let next = self.committed.map_or(1, |committed| committed + 1);
        let (epoch, _) = *self.epoch.get_or_insert_with(|| (next, Instant::now()));
        if epoch < next {
            return Ok(());
        }
        self.encoder.encode(changes, &mut self.batch)
    }
    fn flush(&mut self) -> Result<()> {
        self.outgoing.check()
    }
    fn finish(&mut self) -> Result<()> {
        self.patience = Some(LAST);
        self.commit()
    }
    fn has_epochs(&self) -> bool {
        true
    }
    fn committed(&self) -> Option<u64> {
        self.committed
    }
    fn begin(&mut self, epoch: u64) -> Result<()> {
        self.epoch = Some((epoch, Instant::now()));
        Ok(())
    }
    fn is_due(&self) -> bool {
        let old = self.epoch.is_some_and(|(_, since)| since.elapsed() >= DUE_AFTER);
        old || self.batch.bytes() >= DUE_BYTES
    }
    fn commit(&mut self) -> Result<()> {
        let Some((epoch, _)) = self.epoch.take() else { return Ok(()) };
        if self.committed.is_some_and(|committed| epoch <= committed) {
            return Ok(());
        }
        self.commit_epoch(epoch)?;
        self.batch.clear();
        self.committed = Some(epoch);
        Ok(())
    }
}
