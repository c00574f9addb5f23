//! A consumer of a group with librdkafka's defaults, which commits by itself and goes on whatever happens. It reads from the
//! end, and is asked for figures as `watch` is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;

use crate::Options;
use crate::counts::{Counts, say};
use crate::watch::go_on;

/// How many messages are taken between two looks for a question.
const BURST: usize = 1_000;

/// `partitions=N`: those that are read once it is under way.
pub(crate) fn group(options: &Options) {
    let counts = Counts::watching(Some(Mutex::new(BTreeMap::new())));
    let mut config = options.client();
    config.set("group.id", "load").set("auto.offset.reset", "latest");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[options.text("topic")]).expect("a topic");
    let partitions = options.number("partitions", 1.0) as usize;
    let step = || {
        for _ in 0..BURST {
            match consumer.poll(Duration::from_millis(1)) {
                Some(Ok(message)) => {
                    counts.moved(message.partition());
                    counts.count(message.payload_len());
                }
                Some(Err(_)) => _ = counts.errors.fetch_add(1, Ordering::Relaxed),
                None => break,
            }
        }
    };
    let ended = go_on(&counts, partitions, step);
    say(&format!("end {}", counts.take(ended)));
}
