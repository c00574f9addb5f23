"""aiokafka: the scenario that every client runs against a broker.

Usage: aio.py BOOTSTRAP. Prints what outcome.py reads; the first failure ends it with exit code 1.
"""

import asyncio
import contextlib
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata
from scenario import BOOTSTRAP, LARGE, LARGE_LIMIT_BYTES, PARTITIONS, REPLICATION_FACTOR, RUN, Warnings
from scenario import check_dense, expected_records, ok, say, skip, transaction

TOPIC = f"aiokafka-{RUN}"
GROUP = f"aiokafka-group-{RUN}"
TRANSACTIONAL = f"aiokafka-transactions-{RUN}"


async def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def producer(**more):
    one = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=5, acks="all", enable_idempotence=True, **more)
    await one.start()
    yield one
    await one.stop()


@contextlib.asynccontextmanager
async def consumer(*topics, **more):
    settings = dict(group_id=GROUP, auto_offset_reset="earliest", enable_auto_commit=False, heartbeat_interval_ms=300)
    one = AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **{**settings, **more})
    await one.start()
    yield one
    await one.stop()


async def create_and_describe(admin):
    await admin.create_topics([NewTopic(TOPIC, 2, REPLICATION_FACTOR, topic_configs={"retention.ms": "86400000"})])
    await admin.create_partitions({TOPIC: NewPartitions(PARTITIONS)})

    async def grown():
        (described,) = await admin.describe_topics([TOPIC])
        return len(described["partitions"]) == PARTITIONS

    await wait_until(grown, "the new partitions")
    ok("create")
    # AlterConfigs sets the whole list: what is not named goes back to its default.
    values = {"max.message.bytes": str(LARGE_LIMIT_BYTES), "retention.ms": "43200000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, values)])
    (described,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
    entries = {entry[0]: entry[1] for entry in described.resources[0][4]}
    assert all(entries[name] == value for name, value in values.items()), entries
    ok("configs")


async def produce_with_every_codec():
    sent, by_codec = {}, {}
    for codec, partition, key, value, headers in expected_records():
        by_codec.setdefault(codec, []).append((partition, key, value, headers))
    for codec, records in by_codec.items():
        async with producer(compression_type=None if codec == "none" else codec) as one:
            waiting = [await one.send(TOPIC, value, key, partition, headers=headers) for partition, key, value, headers in records]
            for (_, key, value, headers), placed in zip(records, await asyncio.gather(*waiting)):
                sent[placed.partition, placed.offset] = (key, value, tuple(headers))
    check_dense(sent)
    ok("idempotent")
    return sent


async def large_record():
    async with producer(max_request_size=LARGE_LIMIT_BYTES) as one:
        placed = await one.send_and_wait(TOPIC, LARGE, partition=3)
    async with consumer(group_id=None) as reader:
        tp = TopicPartition(TOPIC, 3)
        reader.assign([tp])
        reader.seek(tp, placed.offset)
        assert (await reader.getone()).value == LARGE
    ok("large")
    return placed.partition, placed.offset


async def group_with_a_rebalance(sent, large):
    seen = {}
    done = asyncio.Event()

    async def read(one):
        while not done.is_set():
            for records in (await one.getmany(timeout_ms=100)).values():
                seen.update({(r.partition, r.offset): (r.key, r.value, r.headers) for r in records})
        while True:
            try:
                return await one.commit()
            except CommitFailedError:
                await asyncio.sleep(0.1)

    async def shared():
        owned = [{tp.partition for tp in one.assignment()} for one in (first, second)]
        return len(owned[0]) == len(owned[1]) == 2 and not owned[0] & owned[1]

    async def all_read():
        return len(seen) == len(sent) + 1

    async with consumer(TOPIC) as first:
        reading = [asyncio.create_task(read(first))]

        async def owns_all():
            return len(first.assignment()) == PARTITIONS

        await wait_until(owns_all, "the first member to own every partition")
        async with consumer(TOPIC) as second:
            reading.append(asyncio.create_task(read(second)))
            await wait_until(shared, "the group to share its partitions")
            await wait_until(all_read, "every record to be read")
            done.set()
            await asyncio.gather(*reading)
    del seen[large]
    assert seen == sent, "what was read differs from what was sent"
    ok("codecs", "none, gzip, snappy, lz4, zstd")
    ok("group")
    skip("cooperative", "aiokafka has no cooperative assignor")


async def seek_by_time():
    middle = int(time.time() * 1000) + 60_000
    async with producer(compression_type="gzip") as one:
        placed = [
            (await one.send_and_wait(TOPIC, b"timed", partition=0, timestamp_ms=middle + i * 1000)).offset for i in range(10)
        ]
    tp = TopicPartition(TOPIC, 0)
    async with consumer(group_id=None) as reader:
        found = (await reader.offsets_for_times({tp: middle + 4500}))[tp]
        assert found.offset == placed[5], (found, placed)
        assert (await reader.beginning_offsets([tp]))[tp] == 0
        assert (await reader.end_offsets([tp]))[tp] == placed[-1] + 1
        reader.assign([tp])
        reader.seek(tp, found.offset)
        assert [(await reader.getone()).offset for _ in range(5)] == placed[5:]
    ok("time")


async def commit_and_resume(admin):
    tp = TopicPartition(TOPIC, 1)
    async with consumer() as first:
        first.assign([tp])
        await first.commit({tp: OffsetAndMetadata(7, "half way")})
        assert await first.committed(tp) == 7
    offsets = await admin.list_consumer_group_offsets(GROUP)
    assert offsets[tp] == OffsetAndMetadata(7, "half way"), offsets
    ok("offsets")
    async with consumer() as second:
        second.assign([tp])
        assert (await second.getone()).offset == 7
    ok("resume")


async def transactions(admin):
    await admin.create_topics([NewTopic(TRANSACTIONAL, 2, REPLICATION_FACTOR)])
    async with producer(transactional_id=TRANSACTIONAL) as one:

        async def begin(name):
            await one.begin_transaction()
            for partition, value in transaction(name):
                await one.send(TRANSACTIONAL, value, partition=partition)
            await one.flush()

        await begin("first")
        await one.commit_transaction()
        await begin("aborted")
        await one.abort_transaction()
        await begin("last")
        await one.send_offsets_to_transaction({TopicPartition(TOPIC, 1): 5}, TRANSACTIONAL)
        await one.commit_transaction()
    async with consumer(group_id=TRANSACTIONAL, isolation_level="read_committed") as reader:

        async def committed():
            return await reader.committed(TopicPartition(TOPIC, 1)) == 5

        # The end of a transaction is answered before its markers are written, and aiokafka does not ask for stable offsets.
        await wait_until(committed, "the committed offset")
        partitions = [TopicPartition(TRANSACTIONAL, partition) for partition in range(2)]
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)
        expected = [*transaction("first"), *transaction("last")]
        got = [await reader.getone() for _ in expected]
        assert sorted((record.partition, record.value) for record in got) == sorted(expected)
        assert not await reader.getmany(timeout_ms=500)
    await admin.delete_topics([TRANSACTIONAL])
    ok("transactions")


async def groups_and_deletion(admin):
    assert GROUP in {group[0] for group in await admin.list_consumer_groups()}
    (described,) = await admin.describe_consumer_groups([GROUP])
    assert described.groups[0][2] == "Empty", described
    ok("groups", "no deletion: the admin client has none")
    tp = TopicPartition(TOPIC, 2)
    assert (await admin.delete_records({tp: RecordsToDelete(3)}))[tp] == 3
    await admin.delete_topics([TOPIC])

    async def gone():
        return TOPIC not in await admin.list_topics()

    await wait_until(gone, "the topic to be gone")
    ok("delete")


async def main():
    # The dialogue of a rebalance, at a level of its own choice.
    warnings = Warnings(harmless=("because it is rebalancing",))
    say(f"version {aiokafka.__version__}")
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    await create_and_describe(admin)
    sent = await produce_with_every_codec()
    large = await large_record()
    await group_with_a_rebalance(sent, large)
    await seek_by_time()
    await commit_and_resume(admin)
    await transactions(admin)
    await groups_and_deletion(admin)
    await admin.close()
    # aiokafka counts nothing itself; it warns of every failed request and every retry.
    say(f"count warnings {warnings.counted}")


asyncio.run(main())
