"""What a scenario said, line by line, and what the broker counted meanwhile.

    version 2.1.0          the client's own version, from the client
    ok STEP [detail]       a step of the scenario that passed
    skip STEP why          a step that this client cannot do
    count NAME N           what the client counted of its own errors and retries (zero in a healthy run)

Other lines are for people. May not know: how the scenario was run.
"""

import dataclasses

# Error codes that are part of the protocol's dialogue, not of a failure: (api, error) -> why it is asked for.
DIALOGUE = {
    ("JoinGroup", "MEMBER_ID_REQUIRED"): "the first join of a member asks for its id (KIP-394)",
    ("Heartbeat", "REBALANCE_IN_PROGRESS"): "how a member learns that it has to join again",
    ("OffsetCommit", "REBALANCE_IN_PROGRESS"): "a commit between two generations; the member joins and commits again",
    ("JoinGroup", "REBALANCE_IN_PROGRESS"): "a member joins while the group is between two generations",
    ("SyncGroup", "REBALANCE_IN_PROGRESS"): "another member came while this one waited for its assignment",
    ("ApiVersions", "UNSUPPORTED_VERSION"): "a client newer than the broker asks first in its own version (KIP-511)",
    ("Fetch", "NOT_LEADER_OR_FOLLOWER"): "a fetch that still waited when its topic was deleted",
    ("Fetch", "UNKNOWN_TOPIC_OR_PARTITION"): "likewise, of a client that has left without taking its fetch back (Java 2.8)",
    ("ListOffsets", "UNKNOWN_TOPIC_OR_PARTITION"): "likewise, of a client that has left: it waited behind such a fetch (aiokafka)",
    ("ElectLeaders", "ELECTION_NOT_NEEDED"): "the preferred leader leads already",
    ("DescribeAcls", "SECURITY_DISABLED"): "likewise",
    ("CreateAcls", "SECURITY_DISABLED"): "the answer of a broker without an authorizer, as Kafka's",
    ("DeleteAcls", "SECURITY_DISABLED"): "likewise",
    **{
        (api, "CONCURRENT_TRANSACTIONS"): "the markers of the transaction before are still being written; the client asks again"
        for api in ("InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "Produce")
    },
    ("TxnOffsetCommit", "COORDINATOR_LOAD_IN_PROGRESS"): "likewise",
    ("OffsetFetch", "UNSTABLE_OFFSET_COMMIT"): "likewise, of a client that asks for stable offsets (KIP-447)",
    ("Metadata", "UNKNOWN_TOPIC_OR_PARTITION"): "a topic is asked for before it exists or after it was deleted",
}

# Likewise where there are several nodes: one learns from others who leads.
CLUSTER_DIALOGUE = {
    ("FindCoordinator", "COORDINATOR_NOT_AVAILABLE"): "the first group of a cluster: its coordinator is being made",
    ("DescribeConfigs", "UNKNOWN_TOPIC_OR_PARTITION"): "a node still lists a topic that was deleted through another one; sarama then asks for its settings",
}


@dataclasses.dataclass
class Outcome:
    expected: tuple
    version: str = ""
    passed: dict = dataclasses.field(default_factory=dict)
    skipped: dict = dataclasses.field(default_factory=dict)
    counts: dict = dataclasses.field(default_factory=dict)
    answers: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, printed, broker_errors, expected):
        outcome = cls(expected, answers=broker_errors)
        for line in printed.splitlines():
            word, _, rest = line.partition(" ")
            name, _, text = rest.partition(" ")
            if word == "version":
                outcome.version = rest
            elif word == "ok":
                outcome.passed[name] = text
            elif word == "skip":
                outcome.skipped[name] = text
            elif word == "count":
                outcome.counts[name] = outcome.counts.get(name, 0) + int(text)
        return outcome

    def unexpected(self, nodes):
        expected = {*DIALOGUE, *(CLUSTER_DIALOGUE if nodes > 1 else ())}
        return {f"{api} {error}": n for (api, error), n in self.answers.items() if (api, error) not in expected}

    def check(self, healthy, nodes=1):
        assert self.version or not self.expected, "the scenario does not say which version of the client it ran"
        said = {*self.passed, *self.skipped}
        missing = [step for step in self.expected if step not in said]
        assert not missing, f"steps that were neither done nor skipped: {missing}"
        strange = [step for step in said if self.expected and step not in self.expected]
        assert not strange, f"steps that no other client has: {strange}"
        assert all(self.skipped.values()), f"skipped without a reason: {self.skipped}"
        assert not self.expected or self.counts, "the scenario does not count the client's errors and retries"
        if not healthy:
            return
        assert not any(self.counts.values()), f"the client counted errors or retries in a healthy run: {self.counts}"
        assert not self.unexpected(nodes), f"the broker answered errors in a healthy run: {self.unexpected(nodes)}"

    def as_record(self, seconds, failure):
        return {
            "version": self.version,
            "passed": self.passed,
            "skipped": self.skipped,
            "counts": self.counts,
            "answers": {f"{api} {error}": n for (api, error), n in sorted(self.answers.items())},
            "seconds": round(seconds, 1),
            "failure": str(failure).splitlines()[0] if failure else None,
        }
