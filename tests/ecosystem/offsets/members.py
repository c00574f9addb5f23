"""Groups whose members commit with a time after which the offsets are to be forgotten, as clients up to Kafka 2.0 could.

Usage: members.py BOOTSTRAP TOPICS GROUP..., with TOPICS separated by commas. Each group has one member, which commits one more in each
partition each time; "committing" is printed after the first. A line on standard input ends that: what was committed last is printed, as
JSON {group: {"topic/partition": offset}}, and the members stay without another commit. Runs in the Python of the exporter, whose client is
of that time.

Coordinators write such a commit in a version that older tools can read (1); Kafka 4 writes all others in version 4, which they cannot. May
not know: what reads the commits.
"""

import json
import sys
import threading

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, KafkaError
from kafka.protocol.commit import OffsetCommitRequest

RETENTION_MS = 24 * 3600 * 1000
# The client has no setting for it, but a constant that it puts into each commit.
OffsetCommitRequest[2].DEFAULT_RETENTION_TIME = RETENTION_MS
POLL_MS = 200


class Member:
    def __init__(self, bootstrap, topics, group):
        self.group = group
        self.consumer = KafkaConsumer(*topics, bootstrap_servers=bootstrap.split(","), group_id=group, enable_auto_commit=False)
        # One member has all there is.
        self.wanted = {TopicPartition(topic, partition) for topic in topics for partition in self.consumer.partitions_for_topic(topic)}
        self.count = 0

    def poll(self):
        """What keeps it a member; it reads nothing."""
        self.consumer.poll(POLL_MS)
        self.consumer.pause(*self.consumer.assignment())

    def join(self):
        while self.consumer.assignment() != self.wanted:
            self.poll()

    def commit(self):
        """Until it is answered that it is done."""
        self.count += 1
        offsets = {one: OffsetAndMetadata(self.count + one.partition, "") for one in self.wanted}
        while True:
            try:
                self.join()
                self.consumer.commit(offsets)
                return
            except (CommitFailedError, KafkaError) as failure:
                print(f"{self.group} commits {self.count} once more: {failure!r}", file=sys.stderr, flush=True)
                self.poll()

    def committed(self):
        return {f"{one.topic}/{one.partition}": self.count + one.partition for one in self.wanted}


def main():
    bootstrap, topics, *groups = sys.argv[1:]
    members = [Member(bootstrap, topics.split(","), group) for group in groups]
    for member in members:
        member.commit()
    print("committing", flush=True)
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    while not told.is_set():
        for member in members:
            member.commit()
    print(json.dumps({member.group: member.committed() for member in members}), flush=True)
    while True:
        for member in members:
            member.poll()


if __name__ == "__main__":
    main()
