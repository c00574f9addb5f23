"""The 25 resizes of pipelines.py, one after the other, each of them carried out before the next one is asked for.

Four rounds of a split, a move, a move back and a merge of a shard that carries the input, a step with the shard of the group's
coordinator, and another number of shards for the topic; one more step with the coordinator at the end. May not know: clients, jobs.
"""

import collections
import dataclasses
import json
import subprocess
import time
import urllib.error

from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

DONE_SECONDS_MAX = 180
LOOK_SECONDS = 0.1
OFFSETS = "__consumer_offsets"
# What `ottla topic resize` asks for, a number a round: so many partitions in a shard, or the shards that all topics share.
PARTITIONS_OF_SHARD = (4, 2, 8, None)
COORDINATOR_STEPS = ("split", "move", "merge", "split", "merge")
RESIZES = len(PARTITIONS_OF_SHARD) * 5 + len(COORDINATOR_STEPS)
CHANGING = ("leaving", "learner", "joining")


def java_hash(text):
    """String.hashCode() of Java, made positive as Kafka does: what a group's partition hangs on."""
    number = 0
    for letter in text.encode():
        number = (31 * number + letter) & 0xFFFFFFFF
    return number & 0x7FFFFFFF


@dataclasses.dataclass
class Resize:
    kind: str
    said: str
    begun: float
    ended: float = 0.0


class Resizes:
    def __init__(self, binary, cluster, topic, group):
        """`group`: whose coordinator is resized, too."""
        self.binary, self.cluster, self.topic, self.group = binary, cluster, topic, group
        self.admin = f"http://{cluster.brokers[0].admin}"
        self.client = AdminClient({"bootstrap.servers": cluster.bootstrap})
        self.done, self.refused = [], []
        self.parent = self.child = self.home = None
        self.of_coordinator = []

    # How it is now.

    def page(self, path):
        return json.load(self.cluster.brokers[0].get(path))

    def shards(self):
        return {shard["id"]: shard for shard in self.page("/v1/shards")["shards"] if shard["id"] != 0}

    def shard(self, number):
        return self.page(f"/v1/shards/{number}")

    def carriers(self, topic):
        """The shards that carry partitions of a topic, and which."""
        found = collections.defaultdict(list)
        for partition in self.page(f"/v1/topics/{topic}")["partitions"]:
            found[partition["shard"]].append(partition["partition"])
        return found

    @staticmethod
    def nodes(shard):
        return [replica["node"] for replica in shard["replicas"]]

    def is_at_rest(self):
        """No shard is being split, merged or moved, and each has a leader."""
        for number, shard in self.shards().items():
            if shard["leader"] is None or any(replica["role"] in CHANGING for replica in shard["replicas"]):
                return False
            try:
                page = self.shard(number)
            except urllib.error.HTTPError:
                # It ended in this moment.
                return False
            if page["merge"] is not None or (page["split"] is not None and not page["split"]["done"]):
                return False
        return True

    # What is asked for.

    def asked(self, *words):
        """What a command says; None if it is refused: the balancer may be moving the shard, say."""
        ran = subprocess.run([self.binary, *map(str, words), "-o", "json"], capture_output=True, text=True)
        if ran.returncode == 0:
            return json.loads(ran.stdout)
        self.refused.append(ran.stderr.strip())
        return None

    def ottla(self, *words):
        """The same, asked again while it is refused."""
        said = []
        self.until(" ".join(map(str, words)), lambda: said.append(self.asked(*words)) or said[-1] is not None, at_rest=False)
        return said[-1]

    def until(self, what, is_so, at_rest=True):
        deadline = time.monotonic() + DONE_SECONDS_MAX
        while not (is_so() and (not at_rest or self.is_at_rest())):
            if time.monotonic() > deadline:
                shards = json.dumps(list(self.shards().values()))
                raise AssertionError(f"not within {DONE_SECONDS_MAX} s: {what}; refused last: {self.refused[-1:]}\n{shards}")
            time.sleep(LOOK_SECONDS)

    def split(self, shard, *partitions):
        """Every second partition moves, if none are named."""
        named = [word for partition in partitions for word in ("--partition", partition)]
        child = self.ottla("shard", "split", shard, *named, "--admin", self.admin)["child"]
        self.until(f"shard {child} is split off shard {shard}", lambda: self.shard(child)["split"]["done"])
        return child

    def move(self, shard, nodes):
        self.ottla("shard", "move", shard, "--to", ",".join(map(str, nodes)), "--admin", self.admin)

        # The balancer may prefer another one of them as the leader right after.
        self.until(f"shard {shard} is moved to {nodes}", lambda: set(self.nodes(self.shard(shard))) == set(nodes))
        self.until(f"the preferred leader leads shard {shard}", lambda: self.is_led_as_preferred(shard))

    def is_led_as_preferred(self, shard):
        """Asks for an election if not: a leader that stays a replica gives way minutes later by itself."""
        found = self.shard(shard)
        if found["leader"] == self.nodes(found)[0]:
            return True
        partitions = [TopicPartition(topic["name"], number) for topic in found["topics"] for number in topic["partitions"]]
        self.client.elect_leaders(ElectionType.PREFERRED, partitions).result()
        return False

    def merge(self, shard, into):
        """Moves it beside the other one first, where the balancer has moved that meanwhile."""

        def is_begun():
            home = self.nodes(self.shard(into))
            if set(home) != set(self.nodes(self.shard(shard))):
                self.move(shard, home)
            return self.asked("shard", "merge", shard, "--into", into, "--admin", self.admin) is not None

        self.until(f"shard {shard} begins to be merged into shard {into}", is_begun, at_rest=False)
        self.until(f"shard {shard} is merged into shard {into}", lambda: shard not in self.shards())

    # The steps; each says what it did.

    def split_input(self):
        carriers = self.carriers(self.topic)
        self.parent = max(carriers, key=lambda shard: (len(carriers[shard]), -shard))
        self.child = self.split(self.parent)
        return f"shard {self.parent} into {self.parent} and {self.child}"

    def elsewhere(self, shard):
        """Nodes for a shard: others as far as there are any, and another leader in any case."""
        here = self.nodes(self.shard(shard))
        others = [number for number in range(1, len(self.cluster.brokers) + 1) if number not in here]
        return [*others, *reversed(here)][: len(here)]

    def move_away(self):
        self.home = self.nodes(self.shard(self.child))
        nodes = self.elsewhere(self.child)
        self.move(self.child, nodes)
        return f"shard {self.child} from {self.home} to {nodes}"

    def move_home(self):
        # The balancer may have moved the other one meanwhile.
        nodes = self.nodes(self.shard(self.parent))
        self.move(self.child, nodes)
        return f"shard {self.child} back to {nodes}"

    def merge_back(self):
        self.merge(self.child, self.parent)
        return f"shard {self.child} into {self.parent}"

    def coordinator(self):
        """The shard that carries the group's partition of __consumer_offsets, and this partition."""
        partitions = self.page(f"/v1/topics/{OFFSETS}")["partitions"]
        number = java_hash(self.group) % len(partitions)
        return next((one["shard"], number) for one in partitions if one["partition"] == number)

    def resize_coordinator(self, kind):
        shard, partition = self.coordinator()
        if kind == "split":
            carried = sorted(self.carriers(OFFSETS)[shard])
            moves = carried[carried.index(partition) % 2 :: 2]
            child = self.split(shard, *(f"{OFFSETS}:{number}" for number in moves))
            self.of_coordinator = [shard, child]
            return f"shard {shard} of the coordinator into {shard} and {child}, which takes the group"
        if kind == "move":
            nodes = list(reversed(self.nodes(self.shard(shard))))
            self.move(shard, nodes)
            return f"shard {shard} of the coordinator to {nodes}"
        parent, child = self.of_coordinator
        self.merge(child, parent)
        return f"shard {child} into {parent} of the coordinator"

    def resize_topic(self, count):
        place = ["--bootstrap-server", self.cluster.bootstrap]
        before = len(self.carriers(self.topic))
        self.ottla("topic", "resize", self.topic, "--shards", count, *place)

        def is_so():
            carriers, shards = self.carriers(self.topic), self.shards()
            own = [shard for shard in carriers if shards[shard]["pinned"] and shards[shard]["partitions"] == len(carriers[shard])]
            return len(own) == len(carriers) == count if count else not any(shards[shard]["pinned"] for shard in carriers)

        self.until(f"{self.topic} has {count} shards of its own", is_so)
        # What is split by hand from now on stays split.
        self.ottla("topic", "alter", self.topic, "--set", "ottla.shard.count=-1", *place)
        return f"{self.topic} from {before} shards to " + (f"{count} of its own" if count else "those that all topics share")

    def steps(self):
        """Kind and deed of each."""
        of_coordinator = [(kind, lambda kind=kind: self.resize_coordinator(kind)) for kind in COORDINATOR_STEPS]
        partitions = len(self.page(f"/v1/topics/{self.topic}")["partitions"])
        for share in PARTITIONS_OF_SHARD:
            count = partitions // share if share else 0
            yield "split", self.split_input
            yield "move", self.move_away
            yield of_coordinator.pop(0)
            yield "move", self.move_home
            yield "merge", self.merge_back
            yield "topic resize", lambda count=count: self.resize_topic(count)
        yield of_coordinator.pop(0)

    def run(self):
        """Carries them out; yields each when it is done."""
        for kind, step in self.steps():
            resize = Resize(kind, "", time.monotonic())
            self.done.append(resize)
            resize.said = step()
            resize.ended = time.monotonic()
            yield resize

    def near(self, moment):
        """The resize that a moment belongs to: the last one that had begun."""
        begun = [(number, resize) for number, resize in enumerate(self.done, 1) if resize.begun <= moment]
        return f"{begun[-1][0]} ({begun[-1][1].kind}, {moment - begun[-1][1].begun:.1f} s after it was asked for)" if begun else "none yet"

    def counts(self):
        kinds = collections.Counter(resize.kind for resize in self.done if resize.ended)
        return f"{sum(kinds.values())} resizes: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
