//! Kafka's settings without effect here: each is accepted with one warning line that gives the reason.
//!
//! May not know: values.

const KRAFT: &str = "not needed: every node keeps its part of the metadata by itself";
const SECURITY: &str = "TLS, SASL and authorisation are not served yet, so it protects nothing";
const TIERING: &str = "there is no remote storage";
const JVM: &str = "there is no JVM and no class to load";
const METRICS: &str = "metrics are at /metrics of the admin port";
const QUOTAS: &str = "quotas are not served yet";
const SHARE: &str = "share and streams groups are not served yet";

/// Settings that a single-process Kafka needs for KRaft and Ottla does not.
const KRAFT_PREFIXES: &[&str] = &[
    "process.roles",
    "controller.",
    "metadata.",
    "early.start.listeners",
    "initial.broker.registration.timeout.ms",
    "unstable.",
    "server.max.startup.time.ms",
    "offline.partitions.",
];

/// An entry ending in `.` stands for all settings with this prefix.
const UNSERVED: &[(&str, &str)] = &[
    ("ssl.", SECURITY),
    ("sasl.", SECURITY),
    ("security.", SECURITY),
    ("listener.name.", SECURITY),
    ("authorizer.class.name", SECURITY),
    ("super.users", SECURITY),
    ("allow.everyone.if.no.acl.found", SECURITY),
    ("principal.builder.class", SECURITY),
    ("delegation.token.", SECURITY),
    ("password.encoder.", SECURITY),
    ("early.start.", KRAFT),
    ("zookeeper.", "not needed: there is no ZooKeeper"),
    ("remote.", TIERING),
    ("log.remote.", TIERING),
    ("metric.reporters", METRICS),
    ("metrics.", METRICS),
    ("kafka.metrics.", METRICS),
    ("telemetry.", METRICS),
    ("auto.include.jmx.reporter", METRICS),
    ("confluent.", "it belongs to another product"),
    ("create.topic.policy.class.name", JVM),
    ("alter.config.policy.class.name", JVM),
    ("config.providers", JVM),
    ("broker.interceptor.class", JVM),
    ("client.quota.callback.class", QUOTAS),
    ("quota.", QUOTAS),
    ("replication.quota.", QUOTAS),
    ("alter.log.dirs.replication.quota.", QUOTAS),
    ("group.share.", SHARE),
    ("group.streams.", SHARE),
    ("share.", SHARE),
    ("group.coordinator.append.linger.ms", "the coordinator has no threads or batches of its own"),
    ("transaction.coordinator.append.linger.ms", "the coordinator has no threads or batches of its own"),
    ("inter.broker.protocol.version", "there is one protocol between nodes"),
    ("log.message.format.version", "only message format v2 is stored"),
    ("log.message.downconversion.enable", "only message format v2 is stored"),
    ("log.message.timestamp.difference.max.ms", "see log.message.timestamp.before.max.ms and .after.max.ms"),
    ("log.dir.failure.timeout.ms", "a failed data directory is given up at once"),
    ("log.initial.task.delay.ms", "background work starts at once"),
    ("log.segment.delete.", "all partitions of a disk share segment files"),
    ("log.deletion.", "all partitions of a disk share segment files"),
    ("controlled.shutdown.", "a node always hands over before it stops"),
    ("broker.id.generation.enable", "node.id is always given"),
    ("reserved.broker.max.id", "node.id is always given"),
    ("group.consumer.regex.refresh.interval.ms", "the newer group protocol (KIP-848) is not served yet"),
    ("follower.fetch.", "replicas are kept by Raft"),
    ("request.logger.", "see ottla.log.level"),
];

/// What Kafka changes in part while a broker runs, or does not know: what is set of it is kept.
const KEPT: &[&str] = &[
    "ssl.",
    "sasl.",
    "listener.name.",
    "principal.builder.class",
    "metric.reporters",
    "remote.",
    "log.remote.",
    "zookeeper.",
    "password.encoder.",
    "confluent.",
];

/// True for a setting of Kafka's that is not in the table, and that Kafka does not change while a broker runs.
pub(in crate::config) fn is_read_only(name: &str) -> bool {
    reason_for(name).is_some() && !KEPT.iter().any(|known| begins(name, known))
}

fn begins(name: &str, known: &str) -> bool {
    name == known || (known.ends_with('.') && name.starts_with(known))
}

/// True for settings that only KRaft needs.
pub(in crate::config) fn unneeded_by_kraft(name: &str) -> bool {
    KRAFT_PREFIXES.iter().any(|known| begins(name, known))
}

/// Why the setting `name`, which is not in the table, has no effect; `None` when Kafka has no such setting.
pub(in crate::config) fn reason_for(name: &str) -> Option<&'static str> {
    if super::setting(name).is_some() {
        return None;
    }
    if unneeded_by_kraft(name) {
        return Some(KRAFT);
    }
    UNSERVED.iter().find(|(known, _)| begins(name, known)).map(|(_, reason)| *reason)
}
