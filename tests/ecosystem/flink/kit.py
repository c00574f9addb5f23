"""The test kit of Flink's Kafka connector, as published, while nodes are killed during its tests.

May not know: how nodes are started, what the tests of the kit do.
"""

import collections
import time

# Tests of a suite: a sink's with two guarantees, a source's with two kinds of split.
EXPECTED = {"SinkSuiteIncrementing": 10, "SinkSuitePooling": 10, "SourceSuite": 16}
# After so many tests a node is killed, somewhere in those that follow.
TESTS_BETWEEN_KILLS, PAUSE_SECONDS_MAX = 3, 4.0
SECONDS_MAX = 600
# A node that is killed before it answers is asked again by the client, and the topic is there: so it is with Kafka, and the kit, which
# was made for nodes that live, takes it for a failure. Such a test says nothing and is run once more.
SAYS_NOTHING = "org.apache.kafka.common.errors.TopicExistsException"


class Kit:
    def __init__(self, place):
        self.place = place
        # The name of a test to its outcome and why.
        self.tests = {}

    def begin(self, *suites):
        options = [f"-Dottla.bootstrap={self.place.bootstrap}"]
        self.process = self.place.java("flink/kit", "RunKit", *suites, memory="1g", options=options)

    def read(self):
        """How many tests have ended."""
        # The last line may not be whole yet.
        whole = self.place.log_of(self.process).split("\n")[:-1]
        lines = [line.split("\t")[1:] for line in whole if line.startswith("test\t")]
        self.tests.update({name: (outcome, why) for name, outcome, why in lines})
        return len(self.tests)

    def has_ended(self):
        return self.process.poll() is not None

    def run_with_kills(self, *suites):
        # The topics of the kit have one replica each: while its node is away, the tests wait.
        self.begin(*suites)
        while not self.has_ended():
            due = (self.place.kills + 1) * TESTS_BETWEEN_KILLS
            self.place.until(lambda due=due: self.has_ended() or self.read() >= due, SECONDS_MAX, f"{due} tests of the kit")
            # Anywhere in a test, not only at its beginning.
            time.sleep(self.place.chance.uniform(0, PAUSE_SECONDS_MAX))
            if not self.has_ended():
                self.place.kill(1 + self.place.kills % self.place.nodes)
        self.read()

    def failed(self):
        return {name: why for name, (outcome, why) in self.tests.items() if outcome != "PASSED"}

    def run_again(self):
        """Without kills, what says nothing; gives how many tests that were."""
        again = [name for name, why in self.failed().items() if why.startswith(SAYS_NOTHING)]
        if again:
            self.begin(*sorted({"#".join(name.split(" ")[:2]) for name in again}))
            self.place.until(self.has_ended, SECONDS_MAX, f"{again}, once more")
            self.read()
        return len(again)


def kit(place):
    suites = [suite for suite in EXPECTED if not place.quick or suite != "SinkSuitePooling"]
    kit = Kit(place)
    kit.run_with_kills(*suites)
    again = kit.run_again()
    failed = [f"{name}: {why}" for name, why in kit.failed().items()]
    assert not failed, f"{len(failed)} of {len(kit.tests)} tests of the kit did not pass:\n" + "\n".join(failed)
    counts = collections.Counter(name.split(" ")[0] for name in kit.tests)
    assert counts == {suite: EXPECTED[suite] for suite in suites}, f"other tests were run than there are: {dict(counts)}"
    told = ", ".join(f"{suite} {count}" for suite, count in counts.items())
    return f"{len(kit.tests)} tests of the connector's own kit ({told}); {place.kills} kills of nodes; {again} run again"
