"""Compacted topics that an application makes: what is left of them once no one writes.

Used by the scenarios of connect and debezium. May not know: what an application keeps in such a topic.
"""

from compaction import COMPACTED_SECONDS_MAX, Stored


class Left(Stored):
    """Of a topic, what a reader of committed records gets who begins at the beginning. A key is always in the same partition."""

    def __init__(self, bootstrap, topic):
        super().__init__(bootstrap, topic, "read_committed")

    def by_key(self):
        """The last value of each key, None being the tombstone of a deleted one."""
        return {key: value for records in self.records.values() for _, key, value in records}

    def is_one_a_key(self):
        return self.count() == len(self.by_key())

    def __str__(self):
        return f"{self.count()} records of {len(self.by_key())} keys, of {self.offsets} offsets"


def one_a_key(place, topic):
    """What is left of the topic once of each key only its last record is. No one writes any more."""
    found = [None]

    def is_so():
        found[0] = Left(place.bootstrap, topic)
        return found[0].is_one_a_key()

    try:
        place.until(is_so, COMPACTED_SECONDS_MAX, f"{topic} is compacted")
    except AssertionError as failure:
        raise AssertionError(f"{failure}; there are {found[0]}") from failure
    return found[0]
