"""What clients say of errors and warnings, counted by what is alike in it."""

import collections
import logging
import re
import time

SHOWN_MAX = 12
TEXT_MAX = 140
# Of a line that a Java program logs: level, class and message, whether slf4j-simple or log4j wrote it.
JAVA_LINE = re.compile(r"\b(WARN|ERROR|INFO)\b,? (?:[\w.$]*\.)?(\w+)(?: -|:) (.*)")
# Kafka's Java clients log these as information.
DISCONNECTED = re.compile(r"disconnect", re.I)


def alike(text):
    """Without what differs from one line to the next."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|0x[0-9a-f]+|\d+", "N", text)[:TEXT_MAX]


class Notices(logging.Handler):
    """What librdkafka logs and reports in this process, with its moments."""

    def __init__(self, file):
        super().__init__()
        self.found, self.file = [], open(file, "a", buffering=1)
        self.logger = logging.Logger("librdkafka")
        self.logger.addHandler(self)

    def emit(self, record):
        self.note(record.getMessage())

    def note(self, text):
        self.found.append((time.monotonic(), text))
        print(time.strftime("%H:%M:%S"), text, file=self.file)

    def counted(self, begun, ended):
        return collections.Counter(alike(text) for at, text in self.found if begun <= at < ended)


def of_java(text):
    """What the lines of a Java program's log say: warnings, errors, and connections that were lost."""
    found = collections.Counter()
    for line in text.splitlines():
        match = JAVA_LINE.search(line)
        if match and (match[1] != "INFO" or DISCONNECTED.search(match[3])):
            found[alike(f"{match[1]} {match[2]}: {match[3]}")] += 1
    return found


def show(what, counted):
    print(f"{what}: {sum(counted.values())} lines")
    for text, count in counted.most_common(SHOWN_MAX):
        print(f"  {count:>6}  {text}")
