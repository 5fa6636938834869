"""Operations on the stream while it is read: messages deleted, purged or taken by somebody else,
and edited settings. Each tells the truth what it did.
"""

import asyncio
import contextlib
import random
import signal

from .clients import Client
from .instances import Instances
from .plan import Fault
from .processes import Unrecovered
from .publisher import Publisher
from .removals import ranges
from .stream import Refused, Stream
from .truth import Truth

# Newest positions among which some are deleted: what is published in so many seconds.
RECENT_SECONDS = 2.0
RECENT_MIN = 20
# Of those, a purge by position leaves this share.
KEPT_SHARE = 0.5
# Clients that were away come back so long after an instance that was held up goes on.
LEAVE_SECONDS = 0.5
# What a message of a stream that allows it may take the place of.
ROLL_UPS = ("sub", "all")
# No message is older than that in a stream whose age is edited; and its memory of repetitions.
EDITED_AGE_SECONDS = 0.5


class Operations:
    """One at a time."""

    def __init__(
        self,
        stream: Stream,
        publisher: Publisher,
        instances: Instances,
        clients: list[Client],
        truth: Truth,
    ) -> None:
        self._stream = stream
        self._publisher = publisher
        self._instances = instances
        self._clients = clients
        self._truth = truth
        self._recent = max(RECENT_MIN, round(publisher.rate * RECENT_SECONDS))
        self._clock = asyncio.get_running_loop().time

    async def carry_out(self, fault: Fault) -> str:
        """Does what the fault says; returns what it did to the stream."""
        if fault.kind == "take":
            taken = await self._take(fault)
            self._truth.taken(taken)
            return f"{len(taken)} taken"
        before = await self._stream.removed()
        async with self.held(fault):
            await self._operate(fault)
        removed = await self._stream.removed() - before
        marks = self._truth.removed(fault.kind, self._clock(), removed)
        return f"removed {ranges(marks)}"

    @contextlib.asynccontextmanager
    async def held(self, fault: Fault):
        """The instance stands still, and its consumer gives nothing out: otherwise the broker goes
        on sending what the instance had asked for. So what is published in the first half of the
        time is there unread, and what is done is done then. Without its consumer the instance asks
        for the stream's settings again when it goes on. Clients that are away resume afterwards."""
        count = round(len(self._clients) * fault.share)
        for client in random.Random(str(fault)).sample(self._clients, count):
            client.leave(fault.hold + LEAVE_SECONDS)
        if not fault.hold:
            yield
            return
        for consumer in await self._consumers(fault.target):
            if fault.consumer == "paused":
                await self._stream.pause(consumer, fault.hold)
            else:
                await self._stream.drop(consumer)
        process = self._instances.processes[fault.target]
        process.signal(signal.SIGSTOP)
        # Not longer, also if the brokers are away and what is done takes its time.
        loop = asyncio.get_running_loop()
        goes_on = loop.call_later(fault.hold, process.signal, signal.SIGCONT)
        try:
            await asyncio.sleep(fault.hold / 2)
            yield
            await asyncio.sleep(goes_on.when() - loop.time())
        finally:
            goes_on.cancel()
            process.signal(signal.SIGCONT)

    async def _operate(self, fault: Fault) -> None:
        chance = random.Random(str(fault))
        last = await self._stream.last_pos()
        recent = range(max(1, last - self._recent), last + 1)
        match fault.kind, fault.way:
            case "delete", way:
                await self._delete(way, recent, min(fault.amount, len(recent)), chance)
            case "purge", "subject":
                await self._stream.purge({"filter": chance.choice(self._publisher.channels)})
            case "purge", "keep":
                await self._stream.purge({"keep": fault.amount})
            case "purge", "seq":
                # Messages below it are purged.
                await self._stream.purge({"seq": recent[-1 - round(len(recent) * KEPT_SHARE)]})
            case "purge", _:
                await self._stream.purge({})
            case "edit", way:
                await self._edit(way, fault, chance)

    async def _delete(self, way: str, recent: range, count: int, chance: random.Random) -> None:
        chosen = recent[-count:] if way == "newest" else chance.sample(recent, count)
        for pos in chosen:
            await self._stream.delete(pos, erase=way == "erase")

    async def _edit(self, way: str, fault: Fault, chance: random.Random) -> None:
        """Other settings for a while."""
        settings = await self._stream.settings()
        try:
            await self._stream.update(settings | _edited(way, fault.amount, self._recent))
            if way == "allow_rollup_hdrs":
                channel, what = chance.choice(self._publisher.channels), chance.choice(ROLL_UPS)
                await self._publisher.roll_up(channel, what, self._clock)
            # An instance that was held up goes on while they still hold.
            await asyncio.sleep(fault.hold / 2 + fault.age)
        except Refused as refusal:
            raise Unrecovered(f"the brokers do not take other settings: {refusal}") from None
        finally:
            await self._stream.update(settings)

    async def _take(self, fault: Fault) -> set[int]:
        taken = set()
        for consumer in await self._consumers(fault.target):
            taken |= await self._stream.take(consumer, fault.amount)
        return taken

    async def _consumers(self, instance: int) -> list[str]:
        name = self._instances.names[instance]
        return [one for one in await self._stream.consumers() if name in one]


def _edited(way: str, amount: int, recent: int) -> dict:
    match way:
        case "max_msgs_per_subject":
            return {"max_msgs_per_subject": amount}
        case "allow_rollup_hdrs":
            return {"allow_rollup_hdrs": True, "deny_purge": False}
        case "max_msgs":
            return {"max_msgs": recent * amount // 10}
        case _:
            # A window for repetitions may not be longer than the age.
            age = round(EDITED_AGE_SECONDS * 1e9)
            return {"max_age": age, "duplicate_window": age}
