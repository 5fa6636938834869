"""The instances of odin-ws, all on the same stream."""

import asyncio
import os
import pathlib

from .processes import Addresses, Process, answers_ok

# Settings of the shell are not for these.
SETTING_PREFIXES = ("WS_", "JS_", "NATS_", "SIM_", "LOG_")


class Instances:
    """All instances, by their number."""

    def __init__(
        self, binary: str, count: int, urls: list[str], addresses: Addresses, folder: pathlib.Path
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(SETTING_PREFIXES)
        }
        self.addresses = [addresses.free() for _ in range(count)]
        self.names = [f"chaos-{number}" for number in range(count)]
        self.processes = [
            Process(
                f"instance {number}",
                [binary, "serve", "--addr", address],
                inherited
                | {
                    "WS_ADMIN_ADDR": f"{addresses.host}:0",
                    "WS_INSTANCE": self.names[number],
                    "NATS_URL": ",".join(urls),
                    "JS_STREAM_REPLICAS": str(len(urls)),
                    "LOG_FORMAT": "json",
                },
                folder / f"instance-{number}.log",
            )
            for number, address in enumerate(self.addresses)
        ]

    async def start(self) -> None:
        for process in self.processes:
            await process.start()

    async def are_ready(self) -> bool:
        """Whether every one has a live source."""
        answers = (answers_ok(address, "/ready") for address in self.addresses)
        return all(await asyncio.gather(*answers))
