"""One run from the first process to the last."""

import argparse
import asyncio
import contextlib
import pathlib

from . import channels, plan
from .balancer import Balancer
from .brokers import Brokers
from .checker import TOLD_SECONDS, Checker
from .clients import Client
from .faults import Executor, World
from .instances import Instances
from .operations import Operations
from .processes import Addresses, Process, Unrecovered, until
from .publisher import Publisher
from .stream import Stream
from .summary import INTERRUPTION_LIMIT_SECONDS, Run
from .truth import Truth

# After the last message: for what is still on its way, and for what should not come.
DRAIN_SECONDS = 15
AFTERMATH_SECONDS = 0.5
WATCH_SECONDS = 0.1


async def run(
    options: argparse.Namespace, faults: list[plan.Fault], folder: pathlib.Path, say
) -> Run:
    """Carries out the plan; whatever happens, no process is left."""
    clock = asyncio.get_running_loop().time
    addresses, truth = Addresses(), Truth()
    names = channels.names(options.channels)
    brokers = Brokers(options.nats_server, options.nodes, addresses, folder)
    urls = brokers.urls()
    instances = Instances(options.binary, options.instances, urls, addresses, folder)
    # Room for each client's connection, its successor and the one that is closing, both ways.
    room = options.clients * 6 + 100
    balancer = Balancer(options.haproxy, instances.addresses, room, addresses, folder)
    publisher, stream = Publisher(urls, names, options.rate, truth), Stream(urls)
    numbers = range(options.clients)
    clients = [_client(number, options, balancer, names, truth) for number in numbers]
    operations = Operations(stream, publisher, instances, clients, truth)
    world = World(brokers, instances, balancer, publisher, stream, operations, truth, clients)
    processes = [node.process for node in brokers.nodes] + instances.processes + [balancer.process]
    watch = Watch(clock)
    result = Run(_told(options), clock(), faults, [], [], truth, clients, 0.0, [])
    try:
        async with asyncio.TaskGroup() as group:
            say("starting")
            watching = group.create_task(watch.run(processes))
            await brokers.start()
            await instances.start()
            await balancer.start()
            await world.all_ready()
            await publisher.connect()
            await stream.connect()
            publishing = group.create_task(publisher.run(options.seed, clock))
            running = [group.create_task(client.run(clock)) for client in clients]
            await _all_subscribed(clients)
            result.begin, watch.lag = clock(), 0.0
            say(f"{len(clients)} clients are subscribed")
            executor = Executor(world, clock, say)
            result.done, result.outages = executor.done, executor.outages
            seconds = options.minutes * 60
            await executor.run(faults, seconds)
            await asyncio.sleep(result.begin + seconds - clock())
            publishing.cancel()
            say("no more is published")
            await publisher.finish()
            await _drained(clients, truth)
            # What is missing may still be told.
            is_operated = any(done.fault.kind in plan.STREAM_KINDS for done in executor.done)
            await asyncio.sleep(TOLD_SECONDS if is_operated else AFTERMATH_SECONDS)
            for task in [watching, *running]:
                task.cancel()
    except* Unrecovered as group:
        result.broken = [str(error) for error in _leaves(group)]
    finally:
        for client in clients:
            client.interruptions.up(clock())
        await publisher.close()
        await stream.close()
        for process in processes:
            await process.end()
    result.memory_bytes = max(process.peak_bytes for process in instances.processes)
    result.lag = watch.lag
    return result


class Watch:
    """Fails if a process ends by itself; measures how late this process itself is."""

    def __init__(self, clock) -> None:
        self.lag = 0.0
        self._clock = clock

    async def run(self, processes: list[Process]) -> None:
        while True:
            due = self._clock() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            self.lag = max(self.lag, self._clock() - due)
            for process in processes:
                process.check()


def _client(
    number: int, options: argparse.Namespace, balancer: Balancer, names: list[str], truth: Truth
) -> Client:
    subscribed = channels.subscriptions(options.seed, number, names, options.subscriptions)
    checker = Checker(channels.covered(subscribed, names))
    url = f"ws://{balancer.front}/ws"
    return Client(number, options.seed, url, subscribed, checker, truth)


async def _all_subscribed(clients: list[Client]) -> None:
    async def are_subscribed() -> bool:
        return all(client.checker.segments for client in clients)

    await until(are_subscribed, "all clients subscribed")


async def _drained(clients: list[Client], truth: Truth) -> None:
    """Waits for the last messages; those that do not come are found missing."""

    async def have_all() -> bool:
        return all(client.checker.has_all(truth.newest_on) for client in clients)

    with contextlib.suppress(Unrecovered):
        await until(have_all, "the last messages", DRAIN_SECONDS)


def _told(options: argparse.Namespace) -> dict:
    """The options as the summary repeats them."""
    names = ("seed", "minutes", "clients", "rate", "channels", "subscriptions", "nodes")
    limit = None if options.no_interruption_limit else INTERRUPTION_LIMIT_SECONDS
    told = {name: getattr(options, name) for name in (*names, "instances", "faults")}
    memory = {"memory_limit_mb": options.memory_limit}
    return told | memory | {"interruption_limit_seconds": limit}


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    leaves = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
