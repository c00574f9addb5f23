"""Whether a fault really happened, judged by what was measured: each function gives a sentence with the numbers, or raises NoEffect.

Pure, so that each judgement is tested without a broker (`test_nemeses.py`). May not know: how a fault is made, nodes, clients.
"""

MIB = 1 << 20
# A timer may be so much early: a measured time counts from this part of the wanted one on.
NEARLY = 0.9
# A wall clock is off by seconds at most where it was not moved: both are read one after the other.
CLOCK_SECONDS_MAX = 5
DAY_SECONDS = 86_400


class NoEffect(Exception):
    """The fault did not happen, so nothing was proved."""


def check(condition, what):
    if not condition:
        raise NoEffect(what)


def unproved(without_effect, effective):
    """Of the reasons why there was no effect, `KIND: WHY` each, those that leave a run without a verdict: a fault without an effect
    proves nothing, but takes nothing from what another one of its kind has proved."""
    return [reason for reason in without_effect if reason.split(":")[0] not in effective]


def delayed(delay_ms, before_ms, during_ms, chunks, held_ms_max, where="between nodes"):
    """Round trips through the proxy before and during the fault, and what the real connections were held up; `where`: whose they are."""
    check(during_ms >= before_ms + 2 * delay_ms * NEARLY, f"a round trip took {during_ms:.0f} ms, {before_ms:.0f} ms before")
    check(chunks > 0, f"no byte {where} was held up")
    return f"round trip {before_ms:.0f} -> {during_ms:.0f} ms, {chunks} chunks {where} held up, {held_ms_max:.0f} ms at most"


def lossy(chance, chunks, lost, broken, where="between nodes"):
    """How many chunks were held up by a loss, and how many connections broke of it."""
    check(lost > 0, f"none of {chunks} chunks {where} was lost at a chance of {chance:.0%} a packet")
    return f"{lost} of {chunks} chunks {where} lost a packet, {broken} connections broken"


def stalled(client, seconds, took_seconds, lines):
    """How long a client stood still, and how many lines of its journal came meanwhile."""
    check(took_seconds >= seconds * NEARLY, f"client {client} stood still for {took_seconds:.1f} s, {seconds} s were meant")
    check(lines == 0, f"client {client} wrote {lines} lines while it stood still")
    return f"client {client} stood still for {took_seconds:.1f} s and wrote nothing"


def full(free_bytes, reserve_bytes, accepts_writes):
    """The file system's free bytes as the kernel has them, and the metric `ottla_disk_accepts_writes`."""
    check(free_bytes < reserve_bytes, f"{free_bytes / MIB:.1f} MiB are free still, the reserve is {reserve_bytes / MIB:.0f}")
    check(accepts_writes == 0, f"ottla_disk_accepts_writes is {accepts_writes} with {free_bytes / MIB:.1f} MiB free")
    return f"{free_bytes / MIB:.1f} MiB free, ottla_disk_accepts_writes 0"


def hung(seconds, write_seconds, syncs):
    """How long one write of the runner's in that file system did not return, and how many syncs the node finished meanwhile."""
    check(write_seconds >= seconds * NEARLY, f"a write returned after {write_seconds:.1f} s, {seconds:.1f} s were meant")
    check(syncs <= 1, f"the node finished {syncs:.0f} syncs of its log while its disk hung")
    return f"a write returned after {write_seconds:.1f} s, {syncs:.0f} syncs of the node's log in the time"


def failed(error_name, accepts_writes, exit_code):
    """What a read of the device got, and what became of the node: None where it gives no metric, or did not end."""
    check(error_name == "EIO", f"a read of the device got {error_name or 'no error'}, not EIO")
    if exit_code is not None:
        check(exit_code == 1, f"the node ended with exit code {exit_code}")
        return "a read of the device got EIO, the node ended with exit code 1"
    check(accepts_writes == 0, f"ottla_disk_accepts_writes is {accepts_writes} on a disk that gives EIO")
    return "a read of the device got EIO, ottla_disk_accepts_writes 0"


def powerless(node, kept, lost, files_changed):
    """Probes in the file system: whether what was synced is there, and what was not synced is gone."""
    check(kept, f"node {node}: a synced file did not survive")
    check(lost, f"node {node}: what was never synced is there after the loss of power")
    return f"node {node}: unsynced bytes gone, synced ones there, {files_changed} of its files fell back"


def flipped(place, before, after, noticed):
    """The byte as it was and as a new process reads it, and what the node said of it."""
    check(bin(before ^ after).count("1") == 1, f"{place}: {before:#04x} is {after:#04x}, not one bit else")
    check(noticed, f"{place}: the bit was never met by the node")
    return f"{place}: {', '.join(noticed)}"


def jumped(seconds, seen_seconds, paused, ahead_seconds):
    """How far a process under the same library is off, and the node's metrics: shards that pause expiry, seconds that they are ahead."""
    off = abs(seen_seconds - seconds)
    check(off <= CLOCK_SECONDS_MAX, f"a process sees a clock {seen_seconds:.0f} s off, {seconds} s were meant")
    check(paused > 0 or ahead_seconds > 0, "no metric of the node shows that its clock jumped")
    days = seen_seconds / DAY_SECONDS
    return f"clock {days:+.2f} days off, expiry paused in {paused:.0f} shards, ahead by {ahead_seconds:.0f} s, all shards together"


def split(before, after, children):
    """The shards by number, before and afterwards, and those that were split off."""
    check(children, "no shard was split")
    check(set(after) - set(before) >= set(children), f"shards {children} are not among {sorted(after)}")
    moved = sum(after[child]["partitions"] for child in children)
    check(moved > 0, f"shards {children} carry nothing")
    return f"{len(before)} shards before, {len(after)} afterwards; {moved} partitions in {len(children)} new ones"


def merged(after, absorbed):
    """The shards by number afterwards, and the partitions of those that were absorbed, by number."""
    check(absorbed, "no shard was merged")
    left = set(after) & set(absorbed)
    check(not left, f"shards {sorted(left)} are still there")
    moved = sum(absorbed.values())
    check(moved > 0, f"shards {sorted(absorbed)} carried nothing")
    return f"{len(absorbed)} shards with {moved} partitions merged; {len(after)} shards afterwards"


def moved_within(before, after, target):
    """The directory of each shard's replica on a node by shard, before and afterwards, and the one to which all were to move."""
    moved = [shard for shard, place in before.items() if place != target and after.get(shard) == target]
    check(moved, f"no replica moved: {len(before)} before, {len(after)} afterwards")
    return f"{len(moved)} of {len(before)} replicas moved to the other directory"


def resized(before, after):
    """The topic's own shards with their partitions, before and afterwards."""
    check(before != after, f"the topic's shards are the same, {sorted(after)}")
    return f"{len(before)} shards of the topic's own before, {len(after)} afterwards, with {sum(after.values())} partitions"


def joined(number, most, after, replicas, exit_code, was_told):
    """Nodes that the cluster listed at most and afterwards, replicas that the further node was given, and how it ended."""
    check(most == after + 1, f"the cluster had {most} nodes with node {number}, and {after} without it")
    check(replicas > 0, f"node {number} was given no replica")
    check(exit_code is not None and was_told, f"node {number} was not told that it is unregistered; exit code {exit_code}")
    return f"{most} nodes, {replicas} replicas on node {number}, then {after} nodes; it ended with exit code {exit_code}"
