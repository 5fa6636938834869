"""Operations on the stream, against a stream that only remembers what it was told."""

import asyncio
import types
import unittest

from ..operations import Operations
from ..plan import Fault
from ..removals import Removals, ranges
from ..truth import Truth

PUBLISHED = 100


class FakeStream:
    """A stream of so many messages, and an instance's consumer."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.log: list = []
        self.config = {"max_msgs": 1000, "max_msgs_per_subject": -1}

    async def last_pos(self) -> int:
        return PUBLISHED

    async def removed(self) -> set[int]:
        return set(self.gone)

    async def delete(self, pos: int, erase: bool) -> bool:
        self.log.append(("erase" if erase else "delete", pos))
        self.gone.add(pos)
        return True

    async def purge(self, how: dict) -> None:
        self.log.append(("purge", how))
        self.gone |= set(range(1, how.get("seq", PUBLISHED + 1)))

    async def settings(self) -> dict:
        return dict(self.config)

    async def update(self, settings: dict) -> None:
        self.log.append(("update", settings))
        self.config = settings

    async def consumers(self) -> list[str]:
        return ["odin-ws-chaos-0-1", "odin-ws-chaos-1-1"]

    async def pause(self, consumer: str, _: float) -> None:
        self.log.append(("pause", consumer))

    async def drop(self, consumer: str) -> None:
        self.log.append(("drop", consumer))

    async def take(self, consumer: str, count: int) -> set[int]:
        self.log.append(("take", consumer))
        return set(range(1, count + 1))


class Carried(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.stream, self.truth = FakeStream(), Truth()
        self.signals: list[str] = []
        self.left: list[float] = []

        def process(name: str):
            return types.SimpleNamespace(
                signal=lambda number: self.signals.append(f"{name} {number.name}")
            )

        async def roll_up(channel: str, what: str, _) -> None:
            self.stream.log.append(("roll up", channel, what))

        publisher = types.SimpleNamespace(rate=10.0, channels=["a"], roll_up=roll_up)
        instances = types.SimpleNamespace(
            names=["chaos-0", "chaos-1"], processes=[process("0"), process("1")]
        )
        client = types.SimpleNamespace(leave=self.left.append)
        self.arguments = (self.stream, publisher, instances, [client] * 4, self.truth)

    async def carry_out(self, kind: str, way: str = "", **fault) -> str:
        for number in range(PUBLISHED):
            self.truth.acknowledged(self.truth.published("a", 0.0), number + 1)
        return await Operations(*self.arguments).carry_out(Fault(0.0, kind, way=way, **fault))

    async def test_the_newest_are_deleted_and_the_truth_knows(self) -> None:
        did = await self.carry_out("delete", "newest", amount=3)
        self.assertEqual(self.stream.log, [("delete", 98), ("delete", 99), ("delete", 100)])
        self.assertEqual(did, "removed 98-100")
        self.assertTrue(all(self.truth.removals.has(pos) for pos in (98, 99, 100)))
        self.assertFalse(self.truth.removals.has(97))

    async def test_any_recent_ones_are_deleted_or_erased(self) -> None:
        for way, word in [("recent", "delete"), ("erase", "erase")]:
            self.setUp()
            await self.carry_out("delete", way, amount=5)
            self.assertEqual({one for one, _ in self.stream.log}, {word})
            self.assertEqual(len({pos for _, pos in self.stream.log}), 5)
            self.assertTrue(all(80 <= pos <= 100 for _, pos in self.stream.log))

    async def test_what_was_gone_before_is_not_removed_again(self) -> None:
        self.stream.gone = {1, 2, 3}
        self.assertEqual(await self.carry_out("purge", "seq"), "removed 4-89")

    async def test_each_purge_asks_for_what_it_is_called(self) -> None:
        ways = {"subject": {"filter": "a"}, "keep": {"keep": 7}, "seq": {"seq": 90}, "all": {}}
        for way, how in ways.items():
            self.setUp()
            await self.carry_out("purge", way, amount=7)
            self.assertEqual(self.stream.log, [("purge", how)])

    async def test_edited_settings_are_put_back(self) -> None:
        before = dict(self.stream.config)
        for way in ("max_msgs_per_subject", "max_msgs", "max_age", "allow_rollup_hdrs"):
            self.setUp()
            await self.carry_out("edit", way, amount=2)
            edited = self.stream.log[0][1]
            self.assertNotEqual(edited, before)
            self.assertEqual(self.stream.log[-1], ("update", before))
            rolled_up = [entry for entry in self.stream.log if entry[0] == "roll up"]
            self.assertEqual(len(rolled_up), way == "allow_rollup_hdrs")

    async def test_one_instance_is_held_up_and_some_clients_are_away(self) -> None:
        for consumer, word in [("paused", "pause"), ("deleted", "drop")]:
            self.setUp()
            held = {"hold": 0.05, "consumer": consumer, "target": 1, "share": 0.5}
            await self.carry_out("delete", "newest", amount=1, **held)
            expected = [(word, "odin-ws-chaos-1-1"), ("delete", 100)]
            self.assertEqual(self.stream.log, expected)
            self.assertEqual(self.signals[0], "1 SIGSTOP")
            self.assertEqual(set(self.signals[1:]), {"1 SIGCONT"})
            self.assertEqual(len(self.left), 2)

    async def test_it_goes_on_in_time_although_the_brokers_do_not_answer(self) -> None:
        answers = asyncio.Event()

        async def delete(_: int, erase: bool) -> bool:
            await answers.wait()
            return not erase

        self.stream.delete = delete
        held = {"hold": 0.05, "consumer": "paused"}
        work = asyncio.create_task(self.carry_out("delete", "newest", amount=1, **held))
        while "0 SIGCONT" not in self.signals:
            await asyncio.sleep(0.01)
        self.assertFalse(work.done())
        answers.set()
        await work

    async def test_messages_are_taken_from_the_consumer_of_the_instance(self) -> None:
        self.assertEqual(await self.carry_out("take", amount=3, target=1), "3 taken")
        self.assertEqual(self.stream.log, [("take", "odin-ws-chaos-1-1")])
        # The stream still holds them.
        self.assertFalse(self.truth.removals.has(1))
        self.assertIn("taken", self.truth.describe(1, 0.0))


class Recorded(unittest.TestCase):
    def test_positions_are_told_as_ranges(self) -> None:
        self.assertEqual(ranges(frozenset({3, 4, 5, 9, 1})), "1, 3-5, 9")
        self.assertEqual(ranges(frozenset()), "none")

    def test_each_removal_counts_once(self) -> None:
        removals = Removals()
        self.assertEqual(removals.add("delete", 1.0, {1, 2}), {1, 2})
        self.assertEqual(removals.add("purge", 2.0, {1, 2, 3}), {3})
        self.assertEqual(removals.count(), 3)
        self.assertIn("delete at 1.0 s", removals.describe(2, 0.0))
