"""Child processes, each in a group of its own, and the addresses that they listen on.

No child outlives the run: the kernel kills it if this process dies (PR_SET_PDEATHSIG), and `end`
kills its whole group.
"""

import asyncio
import ctypes
import os
import pathlib
import random
import re
import signal
import socket

PR_SET_PDEATHSIG = 1
# Looked up here: between fork and exec nothing may be imported.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl

# How often something that has to become true is looked at, and for how long.
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 60


class Unrecovered(Exception):
    """Something did not come (back) in time, or ended by itself."""


class Addresses:
    """Free ports of one address of 127.0.0.0/8, drawn for this run.

    The kernel uses 127.0.0.1 as the source of connections to any of them, so no connection takes
    the port of a server that is away.
    """

    def __init__(self) -> None:
        octets = random.SystemRandom().choices(range(1, 255), k=3)
        self.host = "127." + ".".join(map(str, octets))

    def free(self) -> str:
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            return f"{self.host}:{probe.getsockname()[1]}"


class Process:
    """A command that is started, killed and started again; its output is appended to a log."""

    def __init__(self, name: str, command: list[str], environment: dict, log: pathlib.Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._child: asyncio.subprocess.Process | None = None
        self._is_wanted = False
        # The most that it ever had resident, in all of its lives.
        self.peak_bytes = 0

    async def start(self) -> None:
        with open(self.log, "ab") as output:
            self._child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._is_wanted = True

    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def check(self) -> None:
        """Fails if the process ended by itself."""
        if self._is_wanted and not self.is_running():
            code = self._child.returncode if self._child else None
            raise Unrecovered(f"{self.name} ended by itself with {code}: see {self.log}")

    async def kill(self) -> None:
        self._is_wanted = False
        self.signal(signal.SIGKILL)
        await self._child.wait()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self._is_wanted = False
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._child.wait()
        except TimeoutError:
            raise Unrecovered(f"{self.name} does not end after SIGTERM: see {self.log}") from None

    def signal(self, number: int) -> None:
        if self.is_running():
            # Its last moment may be now.
            self.peak_bytes = max(self.peak_bytes, peak_bytes(self._child.pid))
            os.killpg(self._child.pid, number)

    async def end(self) -> None:
        if self._child is not None:
            await self.kill()


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident; 0 if it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(peak[1]) * 1024 if peak else 0


async def until(condition, what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Waits until the condition, a coroutine function, holds."""
    try:
        async with asyncio.timeout(patience):
            while not await condition():
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise Unrecovered(f"{what} did not happen within {patience} s") from None


async def exchange(address: str, request: str, patience: float = 1) -> str:
    """Sends a request and reads until the peer ends the connection; nothing if it is not there."""
    host, port = address.rsplit(":", 1)
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request.encode())
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""


async def answers_ok(address: str, path: str) -> bool:
    """Whether a plain HTTP request is answered with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    answer = await exchange(address, request)
    return answer.partition("\r\n")[0].split(" ")[1:2] == ["200"]


def _die_with_parent() -> None:
    _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
