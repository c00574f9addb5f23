"""The topics of a run and the numbers of their partitions: in journals and in histories every partition has a number of its own.

May not know: clients, faults.
"""

# By what follows the run's name: plain records, records of transactions, what is made of these, and records with keys.
PLAIN, INPUT, OUTPUT, COMPACT = "", "-input", "-output", "-compact"
# The numbers of a topic's partitions begin here.
PARTITION_FROM = {PLAIN: 0, INPUT: 100, OUTPUT: 200, COMPACT: 300}


def suffix_of(number):
    return max((one for one in PARTITION_FROM if PARTITION_FROM[one] <= number), key=PARTITION_FROM.get)


def place(topic, number):
    """The topic and the partition that have a number. `topic`: the run's."""
    suffix = suffix_of(number)
    return topic + suffix, number - PARTITION_FROM[suffix]


def number_of(topic, name, partition):
    return PARTITION_FROM[name.removeprefix(topic)] + partition
