"""A schema registry that keeps its schemas in topics, and Avro records of several versions, while the registry and nodes are killed.

A registry that begins with nothing but its journal has to say the same schemas with the same ids, for the ids stand in the records. May not
know: how nodes are started, what the registry writes into its journal.
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
import records
from committed import create_topics, differences
from server import PYTHON, Registry

TOPICS, PARTITIONS = ["orders", "refunds"], 3
RECORDS, RECORDS_QUICK = 400, 100
PROGRAM_SECONDS_MAX = 180


class Avro:
    """Records of all versions that were written so far, and those that are found."""

    def __init__(self, place, registry):
        self.place, self.registry = place, registry
        self.count = RECORDS_QUICK if place.quick else RECORDS
        # {topic: {key: (version, value)}}
        self.written = {topic: {} for topic in TOPICS}

    def program(self, command, *given):
        words = [PYTHON, str(HERE / "records.py"), command, self.place.bootstrap, self.registry.url, *map(str, given)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX)
        assert done.returncode == 0, f"records.py {command} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}"
        return done.stdout.splitlines()

    def write(self, version):
        for topic in TOPICS:
            first = len(self.written[topic])
            self.program("write", topic, version, first, self.count)
            numbers = range(first, first + self.count)
            self.written[topic] |= {records.key(number): (version, records.record(version, number)) for number in numbers}

    def judge(self, schemas):
        """Every record is there once, with the id of its version, and reads as it was written. A reader that begins knows no schema."""
        for topic in TOPICS:
            found = {}
            for line in self.program("read", topic):
                _, id, key, value = json.loads(line)
                assert key not in found, f"{topic}: {key} stands twice"
                found[key] = (id, value)
            wanted = {key: (schemas[f"{topic}-value", version][0], value) for key, (version, value) in self.written[topic].items()}
            wrong = differences(found, wanted)
            assert not wrong, f"{topic}: {len(wrong)} of {len(wanted)} records are wrong (key, found, written): {sorted(wrong)[:3]}"
        return sum(map(len, self.written.values()))


def assert_registered(schemas, version):
    """All of each topic up to the version, and no other."""
    wanted = {(f"{topic}-value", number) for topic in TOPICS for number in range(1, version + 1)}
    assert set(schemas) == wanted, f"other schemas are registered than were: {sorted(set(schemas) ^ wanted)}"
    for (subject, number), (_, text) in schemas.items():
        was = records.schema(subject.removesuffix("-value"), number)
        assert json.loads(text) == was, f"{subject} {number} is another schema: {text}"
    assert len({id for id, _ in schemas.values()}) == len(wanted), f"two schemas have one id: {schemas}"


def through_faults(place, registry, avro):
    """A version after the other; between two of them a node or the registry is killed, and at last both."""
    known = {}
    for version in range(1, records.VERSIONS + 1):
        avro.write(version)
        schemas = registry.schemas()
        assert_registered(schemas, version)
        changed = differences({key: schemas[key] for key in known}, known)
        assert not changed, f"schemas are not what they were (which, found, before): {changed[:3]}"
        known = schemas
        if version % 2:
            place.kill(1 + version % place.nodes)
        else:
            registry.kill()
            place.kill(place.chance.randint(1, place.nodes))
            registry.start()
        assert registry.schemas() == known, f"after kills the schemas are {registry.schemas()}, and were {known}"
        place.say(f"{avro.judge(known)} records of {version} versions read as they were written")
    return known


def registry(place):
    create_topics(place.bootstrap, PARTITIONS, place.nodes, *TOPICS)
    server = Registry(place)
    avro = Avro(place, server)
    known = through_faults(place, server, avro)
    for number in range(1, place.nodes + 1):
        place.restart(number)
    server.kill()
    server.start()
    # What is registered again is the same schema.
    for version in range(1, records.VERSIONS + 1):
        avro.write(version)
    assert server.schemas() == known, f"what was registered again is {server.schemas()}, and was {known}"
    count = avro.judge(known)
    faults = f"{server.kills} kills of the registry, {place.kills} of nodes, {place.restarts} restarts of nodes"
    return f"{len(known)} schemas with the same ids, {count} Avro records as they were written; {faults}"


SCENARIOS = {"registry": registry}
