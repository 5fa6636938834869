"""A client that keeps its position, reconnects with full-jitter backoff and resumes."""

import asyncio
import collections
import contextlib
import json
import random
import time
from collections.abc import Coroutine

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from .checker import Checker, Replayed
from .interruptions import Interruptions
from .position import Position
from .truth import Truth

BACKOFF_BASE_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 2.0
# For the handshake with the welcome, and for the acknowledgement of the subscription.
ANSWER_SECONDS = 3.0
# Clients of quiet channels learn by it how far the stream is.
HEARTBEAT_SECONDS = 5.0
# What is no trouble of the run but of a connection.
LOSSES = (OSError, TimeoutError, WebSocketException)


class Lost(WebSocketException):
    """The connection is of no use any more, though it may be open."""


class Client:
    """One client; `run` does not end by itself."""

    def __init__(
        self,
        number: int,
        seed: int,
        url: str,
        subscribed: list[str],
        checker: Checker,
        truth: Truth,
    ) -> None:
        self.number = number
        self.checker = checker
        self.interruptions = Interruptions()
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self.delay = 0.0
        self.delay_from_store = 0.0
        self._url = url
        self._subscribed = subscribed
        self._truth = truth
        self._chance = random.Random(f"{seed}/backoff/{number}")
        self._position = Position()
        self._attempt = 0
        self._socket: ClientConnection | None = None
        self._previous: ClientConnection | None = None
        self._successor: asyncio.Task | None = None
        # Tasks that end by themselves.
        self._loose: set[asyncio.Task] = set()
        self._clock = None
        self._away_until = 0.0
        self._seq = 0
        self._replayed: Replayed | None = None

    async def run(self, clock) -> None:
        self._clock = clock
        try:
            socket = await self._open()
            while True:
                try:
                    await self._subscribe(socket)
                    self._attempt = 0
                    self.interruptions.up(clock())
                    self._drop_previous()
                    socket = await self._read(socket)
                except LOSSES as loss:
                    self.interruptions.down(clock())
                    self._drop(socket)
                    self._drop_previous()
                    self._count_loss(loss)
                    await self._stay_away()
                    socket = await self._reopen()
        finally:
            self.interruptions.up(clock())
            if self._successor is not None:
                self._successor.cancel()

    def leave(self, seconds: float) -> None:
        """Drops the connection, and comes back after so long."""
        if self._clock is not None:
            self._away_until = self._clock() + seconds
        self.cut()

    def cut(self) -> None:
        """Drops the TCP connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _open(self) -> ClientConnection:
        """A connection that was welcomed, after as many attempts as it takes."""
        while True:
            bound = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**self._attempt)
            await asyncio.sleep(self._chance.uniform(0, bound))
            socket = None
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    socket = await connect(
                        self._url,
                        compression=None,
                        proxy=None,
                        open_timeout=None,
                        ping_interval=None,
                        close_timeout=1,
                    )
                    welcome = json.loads(await socket.recv())
                if welcome.get("type") == "welcome":
                    return socket
                self.errors.append(f"the first message was {welcome}")
            except LOSSES:
                pass
            self.counts["failed attempts"] += 1
            self._attempt += 1
            self._drop(socket)

    async def _stay_away(self) -> None:
        if self._away_until > self._clock():
            await asyncio.sleep(self._away_until - self._clock())
            self.interruptions.excused(self._clock())

    async def _reopen(self) -> ClientConnection:
        """The connection that a drain has prepared, or else another one at once: whoever loses a
        connection before its time to move has come does not wait for that."""
        successor, self._successor = self._successor, None
        if successor is not None and successor.done() and not successor.exception():
            return successor.result()
        if successor is not None:
            successor.cancel()
        return await self._open()

    async def _subscribe(self, socket: ClientConnection) -> None:
        resume = self._position.resume()
        command = {"type": "subscribe", "channels": self._subscribed}
        if resume is not None:
            command["resume"] = resume
            self.counts["resumes"] += 1
        self._socket, self._seq, self._replayed = socket, 0, None
        self._attempt += 1
        async with asyncio.timeout(ANSWER_SECONDS):
            await socket.send(json.dumps(command))
            answer = json.loads(await socket.recv())
            while answer.get("type") != "subscribed":
                self._handle(answer)
                answer = json.loads(await socket.recv())
        if answer["rejected"]:
            self.errors.append(f"rejected: {answer['rejected']}")
        self._acknowledged(answer, resume)
        self._let_loose(_beat(socket))

    def _acknowledged(self, answer: dict, resume: dict | None) -> None:
        recovered = answer.get("recovered")
        if resume is None:
            self.counts["fresh"] += 1
            self._begins(answer)
        elif recovered is True:
            self.counts["recovered"] += 1
            self._replayed = Replayed(answer["pos"], answer["resume"]["messages"])
            lives = self._truth.lives
            self.checker.resumed(self._mark(resume), self._mark(answer), lives.current())
        elif recovered is False:
            self.counts["not recovered"] += 1
            self.counts[f"reason {answer['resume']['reason']}"] += 1
            self.checker.told()
            self._begins(answer)
        else:
            # It was not told that it missed anything: what it did miss counts as lost.
            self.counts["recovered missing"] += 1
            self.checker.reaches(self._mark(answer), self._clock())
        self._position.subscribed(answer)

    def _begins(self, answer: dict) -> None:
        """Position 0 is that of a server which has read nothing yet of what the stream retains."""
        if answer["pos"] == 0:
            view = self._truth.lives.current()
            self.checker.begins_anywhere(self._truth.newest, view, self._clock())
        else:
            mark = self._mark(answer)
            self.checker.begins(mark, self._truth.lives.view_from(mark), self._clock())

    def _mark(self, position: dict) -> int:
        return self._truth.lives.mark(position["pos"], position["ts"])

    async def _read(self, socket: ClientConnection) -> ClientConnection:
        """Reads until the connection is lost, or one that takes its place is open."""
        while self._successor is None:
            self._handle(json.loads(await socket.recv()))
        while True:
            receiving = asyncio.create_task(socket.recv())
            try:
                await asyncio.wait(
                    {receiving, self._successor}, return_when=asyncio.FIRST_COMPLETED
                )
                if not self._successor.done():
                    self._handle(json.loads(receiving.result()))
                    continue
            finally:
                receiving.cancel()
            # What came here unread is among what the other connection resumes.
            self.interruptions.down(self._clock())
            self.counts["moved before the end"] += 1
            self._previous = socket
            return await self._reopen()

    def _handle(self, message: dict) -> None:
        if "seq" in message:
            self._event(message)
            return
        match message.get("type"):
            case "resync":
                self.counts["resyncs"] += 1
                self.counts[f"resync {message['reason']}"] += 1
                self._position.resynced(message)
                # What a resume has announced may not come any more.
                self._replayed = None
                view = self._truth.lives.current()
                self.checker.resynced(self._truth.newest, view, self._clock())
            case "source_live":
                self._position.source_live(message)
            case "heartbeat":
                position = message.get("position")
                if position is not None and self._position.reached(position):
                    self.checker.reaches(self._mark(position), self._clock())
            case "source_stale":
                self.counts["stale"] += 1
            case "server_draining":
                self.counts["draining"] += 1
                if self._successor is None:
                    self._successor = asyncio.create_task(self._move(message))
            case _:
                self.errors.append(f"unexpected message {message}")

    def _event(self, event: dict) -> None:
        now = self._clock()
        self._seq += 1
        if event["seq"] != self._seq:
            self.counts["holes in seq"] += 1
            raise Lost("the server dropped messages of this connection")
        channel, pos, mark = event["channel"], event["pos"], self._mark(event)
        sent_at = self._truth.observed(event["data"].get("n"), mark, channel)
        if self._replayed is not None and not self._replayed.goes_on(pos):
            if not self._replayed.is_complete():
                self.errors.append(self._replayed.complaint())
            self._replayed = None
        is_new = self.checker.event(channel, mark, event["prev"], now)
        if is_new and sent_at is not None:
            self.delay = max(self.delay, now - sent_at)
            self.delay_from_store = max(self.delay_from_store, time.time() - event["ts"] / 1000)
        self._position.event(event)

    async def _move(self, draining: dict) -> ClientConnection:
        await asyncio.sleep(draining["reconnect_after_ms"] / 1000)
        return await self._open()

    def _count_loss(self, loss: Exception) -> None:
        code = getattr(getattr(loss, "rcvd", None), "code", None)
        self.counts["losses"] += 1
        self.counts[f"closed with {code}" if code else "cut off"] += 1

    def _drop_previous(self) -> None:
        previous, self._previous = self._previous, None
        self._drop(previous)

    def _drop(self, socket: ClientConnection | None) -> None:
        if socket is not None:
            self._let_loose(_close(socket))

    def _let_loose(self, work: Coroutine) -> None:
        task = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)


async def _beat(socket: ClientConnection) -> None:
    """Until the connection ends."""
    with contextlib.suppress(*LOSSES):
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await socket.send('{"type":"heartbeat"}')


async def _close(socket: ClientConnection) -> None:
    with contextlib.suppress(*LOSSES):
        await socket.close()
