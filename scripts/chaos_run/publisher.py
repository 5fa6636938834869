"""Publishes at a steady rate; every message is repeated until the broker acknowledges it."""

import asyncio
import contextlib
import json
import random

import nats
import nats.errors

from .stream import connect
from .truth import Truth

PUBLISH_TIMEOUT_SECONDS = 1.0
PAUSE_SECONDS = 0.2
# Below the 30 s in which the broker knows a repetition by its Nats-Msg-Id.
GIVE_UP_SECONDS = 25
PAYLOAD_FILLER = "x" * 200


class Publisher:
    """One connection to the brokers, for messages alone."""

    def __init__(self, urls: list[str], channels: list[str], rate: float, truth: Truth) -> None:
        self._urls = urls
        self.channels = channels
        self.rate = rate
        self._truth = truth
        self._sending: set[asyncio.Task] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._client: nats.NATS | None = None

    async def connect(self) -> None:
        self._client = await connect(self._urls)
        self._jetstream = self._client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)

    async def run(self, seed: int, clock) -> None:
        """Publishes until cancelled; a tick that comes late is made up for."""
        chance = random.Random(f"{seed}/publisher")
        begun = clock()
        for count in range(1, 1 << 62):
            await self._is_open.wait()
            channel = chance.choice(self.channels)
            self._send(channel, clock)
            await asyncio.sleep(begun + count / self.rate - clock())

    async def roll_up(self, channel: str, what: str, clock) -> None:
        """Publishes a message that takes the place of all before it: of its channel (`sub`) or of
        the stream (`all`)."""
        await asyncio.wait([self._send(channel, clock, {"Nats-Rollup": what})])

    async def finish(self) -> None:
        """Waits for the acknowledgements that are due."""
        while self._sending:
            await asyncio.wait(self._sending)

    @contextlib.asynccontextmanager
    async def at_rest(self):
        """Within it nothing is published, and all that was published is acknowledged."""
        self._is_open.clear()
        try:
            await self.finish()
            yield
        finally:
            self._is_open.set()

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        if self._client is not None:
            await self._client.close()

    def _send(self, channel: str, clock, first: dict | None = None) -> asyncio.Task:
        task = asyncio.create_task(self._publish(channel, clock, first or {}))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _publish(self, channel: str, clock, first: dict) -> None:
        """`first` are headers of the first attempt alone: what they ask for may be refused."""
        sent_at = clock()
        number = self._truth.published(channel, sent_at)
        payload = json.dumps({"n": number, "filler": PAYLOAD_FILLER}).encode()
        headers = {"Nats-Msg-Id": str(number)}
        while clock() - sent_at < GIVE_UP_SECONDS:
            try:
                all_headers, first = headers | first, {}
                answer = await self._jetstream.publish(channel, payload, headers=all_headers)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.seq:
                self._truth.acknowledged(number, answer.seq)
                return
        self._truth.given_up(number)
