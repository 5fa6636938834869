"""The client against a server that keeps the protocol, and against some that do not."""

import asyncio
import contextlib
import json
import time
import unittest

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from ..checker import Checker
from ..clients import Client
from ..processes import until
from ..truth import Truth
from ..verdict import Verdict, judge

CHANNEL = "a"
EPOCH = "E"


class FakeServer:
    """One channel; what it does wrong is set by the tests."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.log: list[dict] = []
        self.subscribed: dict = {}
        self.knows_resume = True
        self.knows_prev = True
        self.refuses = False
        self.is_loading = False
        self.leaves_out = 0
        self.repeats = 0
        self.announces_more = 0

    async def handle(self, socket) -> None:
        await socket.send(json.dumps({"type": "welcome", "epoch": EPOCH}))
        command = json.loads(await socket.recv())
        newest = self.log[-1] if self.log else {"pos": 0, "ts": 0}
        answer = {"type": "subscribed", "channels": command["channels"], "rejected": []}
        answer |= {"epoch": EPOCH, "pos": newest["pos"], "ts": newest["ts"]}
        if self.is_loading:
            answer |= {"epoch": None, "pos": 0, "ts": 0}
        missed = []
        if "resume" in command and self.knows_resume:
            position = command["resume"]["pos"]
            missed = [event for event in self.log if event["pos"] > position][self.leaves_out :]
            count = len(missed) + self.announces_more
            missed = self.log[len(self.log) - self.repeats - len(missed) :]
            answer |= {"recovered": True, "resume": {"messages": count}}
            if self.refuses:
                answer |= {"recovered": False, "resume": {"reason": "position_too_old"}}
                missed = []
        await socket.send(json.dumps(answer))
        self.subscribed[socket] = 0
        for event in missed:
            await self.send(socket, event)
        await socket.wait_closed()
        del self.subscribed[socket]

    async def publish(self) -> None:
        pos = len(self.log) + 1
        number = self.truth.published(CHANNEL, 0.0)
        self.truth.acknowledged(number, pos)
        prev = pos - 1 if self.knows_prev else 0
        event = {"type": "t", "channel": CHANNEL, "pos": pos, "prev": prev}
        self.log.append(event | {"ts": round(time.time() * 1000), "data": {"n": number}})
        for socket in list(self.subscribed):
            await self.send(socket, self.log[-1])

    async def send(self, socket, event: dict) -> None:
        self.subscribed[socket] += 1
        # A connection that was cut may not have been noticed yet.
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({"seq": self.subscribed[socket]} | event))

    async def tell(self, message: dict) -> None:
        for socket in list(self.subscribed):
            await socket.send(json.dumps(message))


class Clients(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.truth = Truth()
        self.server = FakeServer(self.truth)
        listening = await serve(self.server.handle, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        self.checker = Checker({CHANNEL})
        url = f"ws://127.0.0.1:{port}"
        self.client = Client(0, 1, url, [CHANNEL], self.checker, self.truth)
        running = asyncio.create_task(self.client.run(asyncio.get_running_loop().time))

        async def end() -> None:
            running.cancel()
            await asyncio.wait({running})
            listening.close()

        self.addAsyncCleanup(end)
        await self.subscribed(1)

    async def subscribed(self, count: int) -> None:
        """Waits until the client has subscribed so many times, and has one connection."""

        async def is_subscribed() -> bool:
            counts = self.client.counts
            answered = counts["fresh"] + counts["recovered"] + counts["not recovered"]
            return (
                answered + counts["recovered missing"] == count and len(self.server.subscribed) == 1
            )

        await until(is_subscribed, f"subscription {count}", 10)

    async def publish(self, count: int) -> None:
        """Publishes and waits until the last one was received."""
        for _ in range(count):
            await self.server.publish()

        async def is_received() -> bool:
            return self.checker.last() == self.truth.newest

        await until(is_received, "the last message", 10)

    async def cut(self, missed: int) -> None:
        """Cuts the connection while so many are published."""
        self.client.cut()
        for _ in range(missed):
            await self.server.publish()
        await self.subscribed(2)

    def verdict(self) -> Verdict:
        return judge(self.checker, self.truth, self.truth.previous())

    def assert_found(self, lost=0, announced=0, duplicated=0, errors=0) -> None:
        verdict = self.verdict()
        found = len(verdict.lost), len(verdict.announced), self.checker.duplicated
        self.assertEqual(found, (lost, announced, duplicated))
        self.assertEqual(len(self.client.errors), errors, self.client.errors)
        self.assertEqual(self.truth.contradictions, [])

    async def test_a_connection_that_is_cut_is_resumed(self) -> None:
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found()
        self.assertEqual(self.client.counts["recovered"], 1)
        self.assertEqual(self.verdict().delivered, 9)
        self.assertGreater(self.client.interruptions.longest([]), 0)

    async def test_an_answer_without_recovered_is_counted_and_the_loss_is_found(self) -> None:
        self.server.knows_resume = False
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found(lost=4)
        self.assertEqual(self.client.counts["recovered missing"], 1)

    async def test_a_gap_that_the_server_admits_is_announced(self) -> None:
        self.server.refuses = True
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found(announced=4)
        self.assertEqual(self.client.counts["reason position_too_old"], 1)

    async def test_a_server_that_begins_anew_may_send_what_it_reads_again(self) -> None:
        self.server.refuses = self.server.is_loading = True
        await self.publish(3)
        await self.cut(missed=1)
        (socket,) = self.server.subscribed
        for event in self.server.log[1:]:
            await self.server.send(socket, event)
        await self.publish(2)
        self.assert_found()
        self.assertEqual(self.verdict().expected, 6)

    async def test_a_resume_that_leaves_one_out_is_found(self) -> None:
        self.server.leaves_out = 1
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found(lost=1)

    async def test_a_resume_that_repeats_one_is_found(self) -> None:
        self.server.repeats = 1
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found(duplicated=1, errors=1)

    async def test_a_resume_that_announces_too_many_is_found(self) -> None:
        self.server.announces_more = 1
        await self.publish(3)
        await self.cut(missed=4)
        await self.publish(2)
        self.assert_found(errors=1)

    async def test_messages_that_the_server_dropped_are_resumed(self) -> None:
        await self.publish(3)
        (socket,) = self.server.subscribed
        self.server.subscribed[socket] += 1
        await self.server.publish()
        await self.subscribed(2)
        await self.publish(2)
        self.assert_found()
        self.assertEqual(self.client.counts["holes in seq"], 1)

    async def test_at_a_drain_the_client_moves_and_drops_the_old_connection(self) -> None:
        await self.publish(3)
        (old,) = self.server.subscribed
        await self.server.tell({"type": "server_draining", "reconnect_after_ms": 50})
        await self.publish(3)
        await self.subscribed(2)
        self.assertNotIn(old, self.server.subscribed)
        await self.publish(2)
        self.assert_found()
        counts = self.client.counts
        self.assertEqual((counts["moved before the end"], counts["losses"]), (1, 0))

    async def test_who_was_away_on_purpose_resumes_and_was_not_interrupted(self) -> None:
        await self.publish(3)
        self.client.leave(0.5)
        for _ in range(4):
            await self.server.publish()
        await self.subscribed(2)
        await self.publish(2)
        self.assert_found()
        self.assertEqual(self.client.counts["recovered"], 1)
        self.assertEqual(self.verdict().delivered, 9)
        self.assertLess(self.client.interruptions.longest([]), 0.4)

    async def test_events_without_prev_come_again_after_a_resume(self) -> None:
        await self.publish(3)
        self.server.knows_prev = False
        await self.publish(2)
        self.server.knows_prev = True
        await self.cut(missed=2)
        await self.publish(1)
        self.assert_found()
        self.assertEqual(self.checker.repeated, 2)

    async def test_a_heartbeat_without_a_position_moves_nothing(self) -> None:
        await self.publish(2)
        position = {"epoch": EPOCH, "pos": 3, "ts": 0}
        for more, pos in [({}, 2), ({"position": None}, 2), ({"position": position}, 3)]:
            await self.server.tell({"type": "heartbeat"} | more)
            await self.server.tell({"type": "source_stale"})
            stale = self.client.counts["stale"]

            async def is_read() -> bool:
                return self.client.counts["stale"] > stale

            await until(is_read, "what was told", 10)
            self.assertEqual(self.checker.segments[-1].position, pos)

    async def test_after_a_resync_the_next_events_are_expected(self) -> None:
        await self.publish(3)
        await self.server.tell({"type": "resync", "epoch": EPOCH, "reason": "history_lost"})
        await self.publish(2)
        self.assert_found()
        self.assertEqual(self.client.counts["resync history_lost"], 1)
