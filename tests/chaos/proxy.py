#!/usr/bin/env python3
"""A TCP proxy in front of a node's cluster listener that holds up what goes through it, as a slow or lossy network does.

Usage, by links.py, within the node's namespace: proxy.py LISTEN_ADDRESS PORT TARGET_PORT ECHO_PORT [TARGET_HOST]
Other nodes are told PORT (`ottla.cluster.advertised.listener`). ECHO_PORT is for the runner: what it sends there comes back under the
same conditions, so that a round trip can be measured. Each line on standard input is a JSON object of conditions, {} for none; each
is answered by a line with what was counted since the last one, of the nodes' connections alone. Ends when its standard input does.

A stream can not lack bytes, so a lost packet is what TCP makes of it: what follows waits until it was sent again, after 200 ms, twice
that if it is lost again; and the connection breaks, with all that was under way in it, when it is lost four times.
May not know: what the bytes mean, the runner.
"""

import asyncio
import collections
import contextlib
import json
import random
import sys
import time

PACKET_BYTES = 1448
RETRANSMIT_MS = 200
LOSSES_MAX = 4
CHUNK_BYTES_MAX = 64 << 10
# Chunks under way in one direction of a connection; reading stops above it.
CHUNKS_MAX = 1024


class Conditions:
    """What happens to a chunk. Times in milliseconds, loss as a chance for each packet."""

    def __init__(self, delay_ms=0, jitter_ms=0, loss=0):
        self.delay_ms, self.jitter_ms, self.loss = delay_ms, jitter_ms, loss

    def losses(self, size, chance):
        """How often in a row the same packet of a chunk is lost; packets of one chunk are sent again at the same time."""
        packets = -(-size // PACKET_BYTES)
        if not self.loss or chance.random() >= 1 - (1 - self.loss) ** packets:
            return 0
        losses = 1
        while losses < LOSSES_MAX and chance.random() < self.loss:
            losses += 1
        return losses

    def held_ms(self, losses, chance):
        """How long a chunk is held up that was lost so often; None: its connection breaks."""
        if losses >= LOSSES_MAX:
            return None
        waits = RETRANSMIT_MS * ((1 << losses) - 1)
        return self.delay_ms + chance.uniform(0, self.jitter_ms) + waits


class Direction:
    """When the chunks of one direction are due: none passes the one before it."""

    def __init__(self):
        self.last_due_ms = 0

    def due_ms(self, now_ms, held_ms):
        self.last_due_ms = max(now_ms + held_ms, self.last_due_ms)
        return self.last_due_ms


def now_ms():
    return time.monotonic() * 1000


class Proxy:
    def __init__(self):
        self.conditions, self.chance = Conditions(), random.Random()
        self.counts = collections.Counter()
        self.tasks = set()

    def take_counts(self):
        counts, self.counts = self.counts, collections.Counter()
        return {name: counts[name] for name in ("chunks", "held", "held_ms_max", "lost", "broken")}

    def count(self, losses, held_ms):
        self.counts["chunks"] += 1
        self.counts["lost"] += losses > 0
        self.counts["held"] += bool(held_ms)
        self.counts["broken"] += held_ms is None
        self.counts["held_ms_max"] = max(held_ms or 0, self.counts["held_ms_max"])

    async def receive(self, reader, waiting, is_counted):
        """Chunks with the time at which they are due; None at the end. Raises ConnectionError where the connection breaks."""
        direction = Direction()
        while chunk := await reader.read(CHUNK_BYTES_MAX):
            losses = self.conditions.losses(len(chunk), self.chance)
            held_ms = self.conditions.held_ms(losses, self.chance)
            if is_counted:
                self.count(losses, held_ms)
            if held_ms is None:
                raise ConnectionError("lost too often")
            await waiting.put((direction.due_ms(now_ms(), held_ms), chunk))
        await waiting.put(None)

    async def send(self, waiting, writer):
        while item := await waiting.get():
            due_ms, chunk = item
            if (wait_ms := due_ms - now_ms()) > 0:
                await asyncio.sleep(wait_ms / 1000)
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()

    async def join(self, near, far, is_counted):
        """Both directions, until both have ended or one breaks."""
        tasks = []
        for (reader, _), (_, writer) in ((near, far), (far, near)):
            waiting = asyncio.Queue(CHUNKS_MAX)
            tasks += [asyncio.ensure_future(self.receive(reader, waiting, is_counted)), asyncio.ensure_future(self.send(waiting, writer))]
        writers = [writer for _, writer in (near, far)]
        try:
            await asyncio.gather(*tasks)
            for writer in writers:
                writer.close()
        except (OSError, RuntimeError):
            for writer in writers:
                writer.transport.abort()
        finally:
            for task in tasks:
                task.cancel()

    def serve(self, address, is_counted):
        """What serves a connection: it is joined to one to this address."""

        async def served(reader, writer):
            task = asyncio.current_task()
            self.tasks.add(task)
            try:
                with contextlib.suppress(OSError):
                    await self.join((reader, writer), await asyncio.open_connection(*address), is_counted)
                    return
                writer.transport.abort()
            finally:
                self.tasks.discard(task)

        return served

    async def echo(self, reader, writer):
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES_MAX):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def run(self, address, port, target_port, echo_port, target_host=None):
        inner = await asyncio.start_server(self.echo, "127.0.0.1", 0)
        echo = inner.sockets[0].getsockname()
        await asyncio.start_server(self.serve(echo, False), address, echo_port)
        await asyncio.start_server(self.serve((target_host or address, target_port), True), address, port)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(json.dumps({"ready": True}), flush=True)
        while line := await lines.readline():
            self.conditions = Conditions(**json.loads(line))
            print(json.dumps(self.take_counts()), flush=True)


if __name__ == "__main__":
    where, *ports = sys.argv[1:5]
    asyncio.run(Proxy().run(where, *map(int, ports), *sys.argv[5:]))
