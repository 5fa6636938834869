"""Publishes at a steady rate; every message is repeated until the broker acknowledges it."""

import asyncio
import json
import random

import nats
import nats.errors
import nats.js.errors

from .processes import Unrecovered
from .truth import Truth

STREAM = "ODIN_TOKENS"
PUBLISH_TIMEOUT_SECONDS = 1.0
PAUSE_SECONDS = 0.2
# Below the 30 s in which the broker knows a repetition by its Nats-Msg-Id.
GIVE_UP_SECONDS = 25
PAYLOAD_FILLER = "x" * 200


class Publisher:
    """One connection to the brokers, for messages and for what is asked of JetStream."""

    def __init__(self, urls: list[str], channels: list[str], rate: float, truth: Truth) -> None:
        self._urls = urls
        self._channels = channels
        self._rate = rate
        self._truth = truth
        self._sending: set[asyncio.Task] = set()
        self._client: nats.NATS | None = None

    async def connect(self) -> None:
        self._client = await nats.connect(
            self._urls,
            error_cb=_ignore,
            connect_timeout=1,
            reconnect_time_wait=0.1,
            max_reconnect_attempts=-1,
            ping_interval=1,
            max_outstanding_pings=2,
        )
        self._jetstream = self._client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)

    async def run(self, seed: int, clock) -> None:
        """Publishes until cancelled; a tick that comes late is made up for."""
        chance = random.Random(f"{seed}/publisher")
        begun = clock()
        for count in range(1, 1 << 62):
            channel = chance.choice(self._channels)
            task = asyncio.create_task(self._publish(channel, clock))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            await asyncio.sleep(begun + count / self._rate - clock())

    async def finish(self) -> None:
        """Waits for the acknowledgements that are due."""
        while self._sending:
            await asyncio.wait(self._sending)

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        if self._client is not None:
            await self._client.close()

    async def step_down(self) -> None:
        """Makes the stream's leader step down; done once another node leads."""
        subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"
        answer = json.loads((await self._client.request(subject, timeout=5)).data)
        if not answer.get("success"):
            raise Unrecovered(f"the leader does not step down: {answer.get('error')}")

    async def last_pos(self) -> int:
        """The newest position of the stream; waits until the stream has a leader."""
        give_up = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        while True:
            try:
                return (await self._jetstream.stream_info(STREAM)).state.last_seq
            except (nats.errors.Error, OSError) as error:
                if asyncio.get_running_loop().time() > give_up:
                    raise Unrecovered(f"no answer about the stream: {error!r}") from None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _publish(self, channel: str, clock) -> None:
        sent_at = clock()
        number = self._truth.published(channel, sent_at)
        payload = json.dumps({"n": number, "filler": PAYLOAD_FILLER}).encode()
        headers = {"Nats-Msg-Id": str(number)}
        while clock() - sent_at < GIVE_UP_SECONDS:
            try:
                answer = await self._jetstream.publish(channel, payload, headers=headers)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.seq:
                self._truth.acknowledged(number, answer.seq)
                return
        self._truth.given_up(number)


async def _ignore(_: Exception) -> None:
    """Losses of the connection are what this is about."""
