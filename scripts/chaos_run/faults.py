"""Carries out a plan: each fault, and the recovery from it."""

import asyncio
import dataclasses
import random
import time

from .balancer import Balancer
from .brokers import Brokers
from .clients import Client
from .instances import Instances
from .interruptions import Window
from .lives import pos_of
from .operations import Operations
from .plan import STREAM_KINDS, TRACKS, Done, Fault, track_of
from .processes import Unrecovered, until
from .publisher import Publisher
from .removals import ranges
from .stream import Stream
from .truth import Truth

# Between a recovery and the next fault of the track.
SETTLED_SECONDS = 1.0
# Until the brokers have to know their last message.
TAIL_SECONDS = 15.0


@dataclasses.dataclass
class World:
    """Everything that can be a victim."""

    brokers: Brokers
    instances: Instances
    balancer: Balancer
    publisher: Publisher
    stream: Stream
    operations: Operations
    truth: Truth
    clients: list[Client]

    async def all_ready(self) -> None:
        """Waits until the balancer sends clients to every instance: not before they are ready, as
        it may not have noticed yet that one was away."""

        async def are_ready() -> bool:
            return await self.instances.are_ready() and await self.balancer.are_up()

        await until(are_ready, "all instances ready")


class Executor:
    """Each track follows its own part of the plan."""

    def __init__(self, world: World, clock, say) -> None:
        self._world = world
        self._clock = clock
        self._say = say
        self._begin = clock()
        self.done: list[Done] = []
        # When no broker was there, with a single one.
        self.outages: list[Window] = []
        # An older store is put back, or the stream is operated on, but not both: what an operation
        # did to a stream that is not there any more would not be known.
        self._stream_lock = asyncio.Lock()

    async def run(self, plan: list[Fault], seconds: float) -> None:
        """Faults that are late because the one before took long are left out at the end."""
        async with asyncio.TaskGroup() as group:
            for track in TRACKS:
                group.create_task(self._follow(plan, track, seconds))

    async def _follow(self, plan: list[Fault], track: str, seconds: float) -> None:
        earliest = 0.0
        for fault in plan:
            if track_of(fault.kind) != track:
                continue
            await asyncio.sleep(max(fault.at, earliest) - self._elapsed())
            began = self._elapsed()
            if began > seconds:
                return
            self._report(f"{fault.kind} begins")
            await self._inflict(fault)
            recovered = self._elapsed()
            self.done.append(Done(fault, began, recovered))
            earliest = recovered + SETTLED_SECONDS
            self._report(f"{fault.kind} recovered from")

    async def _inflict(self, fault: Fault) -> None:
        world = self._world
        match fault.kind:
            case "instance-kill":
                await world.instances.processes[fault.target].kill()
                await asyncio.sleep(fault.away)
                await world.instances.processes[fault.target].start()
                await world.all_ready()
            case "instance-term":
                await self._roll(fault.target)
            case "broker-kill":
                began = self._clock()
                await world.brokers.nodes[fault.target].kill()
                await asyncio.sleep(fault.away)
                await world.brokers.nodes[fault.target].start()
                await self._brokers_recovered(began)
            case "broker-pause":
                began = self._clock()
                world.brokers.nodes[fault.target].pause()
                try:
                    await asyncio.sleep(fault.away)
                finally:
                    world.brokers.nodes[fault.target].resume()
                await self._brokers_recovered(began)
            case "broker-step-down":
                await world.stream.step_down()
                await self._brokers_recovered(None)
            case "client-cut":
                count = round(len(world.clients) * fault.share)
                for client in random.Random(str(fault)).sample(world.clients, count):
                    client.cut()
            case "balancer-cut":
                await world.balancer.cut(fault.target)
            case "restore":
                began = await self._restore(fault)
                await self._brokers_recovered(began)
            case kind if kind in STREAM_KINDS:
                async with self._stream_lock:
                    self._report(await world.operations.carry_out(fault))
                await world.all_ready()

    async def _restore(self, fault: Fault) -> float:
        """What is published between the copy and the end of the broker is lost. Returns when the
        broker went away."""
        world = self._world
        (node,) = world.brokers.nodes
        async with self._stream_lock:
            async with world.publisher.at_rest():
                kept = await world.stream.last_pos()
                await asyncio.to_thread(node.keep_store)
            await asyncio.sleep(fault.age)
            async with world.operations.held(fault):
                began = self._clock()
                await node.kill()
            await asyncio.sleep(fault.away)
            await asyncio.to_thread(node.put_back_store)
            lost = world.truth.restored(kept, self._clock(), time.time() * 1000)
            await node.start()
        self._report(f"the store ends at {kept}, removed {ranges(lost)}")
        return began

    async def _roll(self, first: int) -> None:
        processes = self._world.instances.processes
        for process in processes[first:] + processes[:first]:
            code = await process.terminate()
            if code != 0:
                self._report(f"{process.name} exited with {code} after SIGTERM")
            await process.start()
            await self._world.all_ready()

    async def _brokers_recovered(self, away_since: float | None) -> None:
        """Waits for the brokers, then for the instances. A single broker left none meanwhile."""
        await self._world.brokers.recovered()
        if away_since is not None and len(self._world.brokers.nodes) == 1:
            self.outages.append((away_since, self._clock()))
        acknowledged = pos_of(self._world.truth.newest)
        last = 0

        async def has_tail() -> bool:
            nonlocal last
            last = await self._world.stream.last_pos()
            return last >= acknowledged

        try:
            # A node that was paused may take itself for the leader for a moment.
            await until(has_tail, "the tail of the stream", TAIL_SECONDS)
        except Unrecovered:
            self._world.truth.contradictions.append(
                f"the brokers lost their tail: {acknowledged} was acknowledged, {last} is the last"
            )
        await self._world.all_ready()

    def _elapsed(self) -> float:
        return self._clock() - self._begin

    def _report(self, text: str) -> None:
        self._say(f"{self._elapsed():6.1f} s  {text}")
