"""Topics of an application that are given other numbers of shards, one resize after the other, while it runs.

Used by the scenarios of streams and flink. May not know: what an application does with the topics.
"""

import contextlib
import json
import subprocess

RESIZES, RESIZES_QUICK = 25, 4
RESIZED_SECONDS_MAX = 180
# Of so many resizes a node is killed in one, while it is under way, and the application in another one.
RESIZES_PER_KILL = 5


class Resizes:
    """`topics` in turn, each of so many partitions; none to all of these have a shard of their own."""

    def __init__(self, place, topics, partitions):
        self.place, self.topics, self.partitions = place, topics, partitions
        self.done = 0

    def through(self, goes_on, kill_application):
        """25 resizes, after each of which the results go on; says what was done. `kill_application` ends a process of it, and begins
        another one."""
        goes_on()
        for turn in range(RESIZES_QUICK if self.place.quick else RESIZES):
            topic = self.topics[turn % len(self.topics)]
            wanted = self.place.chance.choice([count for count in range(self.partitions + 1) if count != len(self.shards_of(topic))])
            self.place.say(f"{topic} is given {wanted} shards of its own")
            self.place.until(lambda: self.is_asked_for(topic, wanted), RESIZED_SECONDS_MAX, f"a resize of {topic}")
            if turn % RESIZES_PER_KILL == 1:
                self.place.kill(1 + turn % self.place.nodes)
            elif turn % RESIZES_PER_KILL == 3:
                kill_application()
            self.place.until(lambda: len(self.shards_of(topic)) == wanted, RESIZED_SECONDS_MAX, f"{topic} with {wanted} shards")
            self.done += 1
            goes_on()
        return f"{self.done} resizes"

    def is_asked_for(self, topic, count):
        """False while no controller answers, which a kill may be the reason of."""
        words = ["topic", "resize", topic, "--shards", str(count), "--bootstrap-server", self.place.bootstrap.split(",")[0]]
        return subprocess.run([self.place.cluster.binary, *words], capture_output=True, check=False).returncode == 0

    def page(self, path):
        """As the first node that answers has it."""
        for broker in self.place.brokers:
            with contextlib.suppress(OSError):
                return json.load(broker.get(path))
        return {}

    def shards_of(self, topic):
        """The shards that carry nothing but partitions of the topic."""
        pinned = [shard["id"] for shard in self.page("/v1/shards").get("shards", []) if shard["pinned"] and shard["partitions"]]
        carried = {shard: [one["name"] for one in self.page(f"/v1/shards/{shard}").get("topics", [])] for shard in pinned}
        return [shard for shard, names in carried.items() if names == [topic]]
