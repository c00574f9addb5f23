"""The first story: prices are sent and read in a group while the broker dies and comes back."""

import subprocess

from table import PYTHON, ROOT

ROUNDS, SYMBOLS = 40, 5
KILLED_AFTER = (60, 130)


def first_story(broker):
    """Stock prices are sent and read in a group; the broker is killed with -9 in between; nothing is missing."""
    topic, group = "stock-prices", "readers"
    stories = ROOT / "tests" / "stories"
    producer = subprocess.Popen(
        [PYTHON, str(stories / "producer.py"), broker.bootstrap, topic, str(ROUNDS), "0.25"], stdout=subprocess.PIPE, text=True
    )
    consumer = subprocess.Popen(
        [PYTHON, str(stories / "consumer.py"), broker.bootstrap, topic, group, str(ROUNDS * SYMBOLS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sent = []
        for line in producer.stdout:
            sent.append(line.split()[1:])
            if len(sent) in KILLED_AFTER:
                broker.kill_some()
                broker.start()
        if producer.wait(60) != 0:
            raise AssertionError("the producer failed")
        read, _ = consumer.communicate(timeout=120)
        seen = {tuple(line.split()[1:]) for line in read.splitlines() if line.startswith("read ")}
        missing = {tuple(s) for s in sent} - seen
        offsets = {(s[2], s[3]) for s in sent}
        if missing or len(offsets) != len(sent) or len(sent) != ROUNDS * SYMBOLS:
            raise AssertionError(f"{len(sent)} sent, {len(offsets)} places, missing: {sorted(missing)[:5]}")
        print(f"    ok {len(sent)} prices sent and read in a group, the broker killed twice in between")
    finally:
        producer.kill()
        consumer.kill()
