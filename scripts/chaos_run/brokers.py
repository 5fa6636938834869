"""One nats-server or a cluster of them, with JetStream."""

import asyncio
import pathlib
import shutil
import signal

from .processes import Addresses, Process, answers_ok, until


class Broker:
    """One node; its store outlives it."""

    def __init__(self, process: Process, client: str, monitor: str, store: pathlib.Path) -> None:
        self.process = process
        self.client = client
        self._monitor = monitor
        self._store = store
        self._older_store = store.with_name(f"{store.name}-older")

    async def start(self) -> None:
        await self.process.start()

    async def kill(self) -> None:
        await self.process.kill()

    def pause(self) -> None:
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.signal(signal.SIGCONT)

    def keep_store(self) -> None:
        """Puts a copy of the store aside, as it is at this moment."""
        shutil.rmtree(self._older_store, ignore_errors=True)
        self.pause()
        try:
            shutil.copytree(self._store, self._older_store)
        finally:
            self.resume()

    def put_back_store(self) -> None:
        """The copy takes the store's place; the broker has to be away."""
        shutil.rmtree(self._store)
        self._older_store.rename(self._store)

    async def is_healthy(self) -> bool:
        """Whether it serves JetStream and has caught up with the other nodes."""
        self.process.check()
        return await answers_ok(self._monitor, "/healthz")


class Brokers:
    """All nodes, by their number."""

    def __init__(self, binary: str, count: int, addresses: Addresses, folder: pathlib.Path) -> None:
        routes = [addresses.free() for _ in range(count)] if count > 1 else []
        self.nodes = []
        for number in range(count):
            client, monitor = addresses.free(), addresses.free()
            config = folder / f"broker-{number}.conf"
            store = folder / f"broker-{number}"
            config.write_text(_config(number, client, monitor, store, routes), encoding="utf-8")
            log = folder / f"broker-{number}.log"
            process = Process(f"broker {number}", [binary, "--config", str(config)], {}, log)
            self.nodes.append(Broker(process, client, monitor, store))

    def urls(self) -> list[str]:
        return [f"nats://{node.client}" for node in self.nodes]

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
        await self.recovered()

    async def recovered(self) -> None:
        """Waits until all nodes are healthy."""

        async def are_healthy() -> bool:
            return all(await asyncio.gather(*(node.is_healthy() for node in self.nodes)))

        await until(are_healthy, "all brokers healthy")


def _config(number: int, client: str, monitor: str, store: pathlib.Path, routes: list[str]) -> str:
    text = f"""
server_name: "chaos-{number}"
listen: "{client}"
http: "{monitor}"
jetstream {{ store_dir: "{store}", max_memory_store: 64MB, max_file_store: 1GB }}
"""
    if routes:
        others = ", ".join(f'"nats://{route}"' for route in routes)
        text += f"""
cluster {{ name: "chaos", listen: "{routes[number]}", routes: [{others}] }}
"""
    return text
