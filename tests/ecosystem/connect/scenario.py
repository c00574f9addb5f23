"""Kafka Connect, two distributed workers with exactly-once sources: each number stands once, while workers and nodes are killed.

May not know: how nodes are started, how Connect distributes its tasks.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
from committed import Committed, aborted, create_topics
from distributed import distributed
from worker import Worker, Workers

PARTITIONS, TASKS, A_SECOND = 4, 4, 100
PROGRESS_SECONDS_MAX, STOPPED_SECONDS_MAX = 120, 60
NAME, TOPIC = "numbers", "numbers"


class Numbers:
    """The connector on its workers, and what it has written."""

    def __init__(self, place):
        self.place = place
        create_topics(place.bootstrap, PARTITIONS, place.nodes, TOPIC)
        self.workers = Workers(place, *(Worker(place, number) for number in (1, 2)))
        self.asked = self.workers.asked
        self.seen = Committed(place.bootstrap, TOPIC)
        self.workers.configure(NAME, {"connector.class": "NumbersSource", "tasks.max": TASKS, "topic": TOPIC, "a.second": A_SECOND})

    def goes_on(self, by):
        """Until each task has written so many numbers more."""
        self.seen.catch_up()
        before = {str(task): len(self.seen.values[str(task)]) for task in range(TASKS)}

        def is_so():
            self.workers.restart_failed(NAME)
            self.seen.read()
            return all(len(self.seen.values[task]) >= count + by for task, count in before.items())

        self.place.until(is_so, PROGRESS_SECONDS_MAX, f"{by} numbers more of each task after {before}")

    def end(self):
        """Stops the connector; gives the number that each task has reached, as Connect kept it."""
        self.place.until(lambda: self.asked("PUT", f"/connectors/{NAME}/stop") is not None, STOPPED_SECONDS_MAX, "a worker that stops the connector")
        self.place.until(lambda: self.tasks() == [], STOPPED_SECONDS_MAX, "a connector without tasks")
        kept = []

        def is_told():
            kept[:] = (self.asked("GET", f"/connectors/{NAME}/offsets") or {}).get("offsets", [])
            return kept

        self.place.until(is_told, STOPPED_SECONDS_MAX, "the offsets of the connector")
        return {one["partition"]["task"]: one["offset"]["number"] for one in kept}

    def tasks(self):
        status = self.asked("GET", f"/connectors/{NAME}/status")
        return status and status["connector"]["state"] == "STOPPED" and status["tasks"]


def source(place):
    numbers = Numbers(place)
    numbers.goes_on(by=100)
    # One of the two leads the group and fences the tasks of before.
    for worker in range(1, (1 if place.quick else 2) + 1):
        numbers.workers.kill(worker)
        numbers.goes_on(by=100)
    for node in range(1, (1 if place.quick else place.nodes) + 1):
        place.kill(node)
        numbers.goes_on(by=100)
    numbers.workers.kill(place.chance.randint(1, 2))
    place.kill(place.chance.randint(1, place.nodes))
    numbers.goes_on(by=100)
    reached = numbers.end()
    found = Committed(place.bootstrap, TOPIC).read_to_end()
    wanted = {task: [str(number) for number in range(1, last + 1)] for task, last in reached.items()}
    for task in range(TASKS):
        values, due = found[str(task)], wanted.get(str(task), [])
        wrong = [pair for pair in zip(due, values) if pair[0] != pair[1]]
        assert not wrong and len(due) == len(values), f"task {task}: {len(values)} numbers, {len(due)} kept by Connect; (expected, found): {wrong[:3]}"
    total = sum(reached.values())
    unseen = aborted(place.bootstrap, TOPIC, total)
    numbers.workers.assert_no_failures()
    faults = f"{numbers.workers.kills} kills of a worker, {place.kills} of nodes"
    return f"{total} numbers of {TASKS} tasks, each once and in order; {faults}; {unseen} records aborted"


SCENARIOS = {"connect-source": source, "connect-distributed": distributed}
