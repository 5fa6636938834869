"""The checker has to find each kind of fault, and only that."""

import unittest

from ..checker import Checker, Replayed
from ..truth import Truth
from ..verdict import judge


def published(*channels: str) -> Truth:
    """Messages at the positions 1, 2, 3, … of these channels."""
    truth = Truth()
    for pos, channel in enumerate(channels, start=1):
        truth.acknowledged(truth.published(channel, 0.0), pos)
    return truth


class Delivery(unittest.TestCase):
    def setUp(self) -> None:
        self.truth = published("a", "b", "x", "a", "b", "a")
        self.checker = Checker({"a", "b"})
        self.now = 0.0

    def later(self) -> float:
        """So much later that nothing before is told in time."""
        self.now += 100
        return self.now

    def receive(self, *positions: int) -> None:
        """Events as a server sends them, `prev` and all."""
        for pos in positions:
            channel = self.truth.publications[pos - 1].channel
            before = [one for one in self.truth.by_channel[channel] if one < pos]
            self.checker.event(channel, pos, max(before, default=0), self.now)

    def assert_found(self, expected=0, delivered=0, lost=(), announced=0, **counts) -> None:
        verdict = judge(self.checker, self.truth, self.truth.previous())
        self.assertEqual(verdict.expected, delivered + len(lost) + announced, "the sum")
        self.assertEqual((verdict.expected, verdict.delivered), (expected, delivered))
        self.assertEqual((verdict.lost, len(verdict.announced)), (list(lost), announced))
        found = {
            "duplicated": self.checker.duplicated,
            "out_of_order": self.checker.out_of_order,
            "foreign": self.checker.foreign,
            "repeated": self.checker.repeated,
            "wrong_prev": len(verdict.wrong_prev),
        }
        self.assertEqual(found, dict.fromkeys(found, 0) | counts)

    def test_everything_once_and_in_order_is_right(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 4, 5, 6)
        self.assert_found(expected=5, delivered=5)
        self.assertTrue(self.checker.has_all(self.truth.newest_on))

    def test_what_was_before_the_start_is_not_expected(self) -> None:
        self.checker.begins(2)
        self.receive(4, 5, 6)
        self.assert_found(expected=3, delivered=3)

    def test_a_message_left_out_is_lost_also_if_prev_names_it(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 5, 6)
        self.assert_found(expected=5, delivered=4, lost=[4])

    def test_the_first_message_after_the_start_left_out_is_lost(self) -> None:
        self.checker.begins(1)
        self.receive(2, 5, 6)
        self.assert_found(expected=4, delivered=3, lost=[4])

    def test_prev_that_passes_over_a_message_is_wrong(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 5)
        self.checker.event("a", 6, 1)
        self.assert_found(expected=5, delivered=4, lost=[4], wrong_prev=1)

    def test_prev_of_another_channel_is_wrong(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2)
        self.checker.event("a", 4, 2)
        self.receive(5, 6)
        self.assert_found(expected=5, delivered=5, wrong_prev=1)

    def test_the_last_message_left_out_is_lost(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 4, 5)
        self.assert_found(expected=5, delivered=4, lost=[6])
        self.assertFalse(self.checker.has_all(self.truth.newest_on))

    def test_nothing_received_is_everything_lost(self) -> None:
        self.checker.begins(0)
        self.assert_found(expected=5, lost=[1, 2, 4, 5, 6])

    def test_a_message_again_is_duplicated(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 4, 2, 5, 6)
        self.assert_found(expected=5, delivered=5, duplicated=1)

    def test_a_message_from_before_the_start_is_duplicated(self) -> None:
        self.checker.begins(2)
        self.receive(2, 4, 5, 6)
        self.assert_found(expected=3, delivered=3, duplicated=1)

    def test_a_message_late_is_out_of_order_and_not_lost(self) -> None:
        self.checker.begins(0)
        self.receive(1, 4, 2, 5, 6)
        self.assert_found(expected=5, delivered=5, out_of_order=1)

    def test_a_late_message_again_is_duplicated(self) -> None:
        self.checker.begins(0)
        self.receive(1, 4, 2, 2, 5, 6)
        self.assert_found(expected=5, delivered=5, out_of_order=1, duplicated=1)

    def test_a_channel_that_was_not_subscribed_is_foreign(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 3, 4, 5, 6)
        self.assert_found(expected=5, delivered=5, foreign=1)

    def test_a_gap_that_was_announced_is_no_loss(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2)
        self.checker.begins(4)
        self.receive(5, 6)
        self.assert_found(expected=5, delivered=4, announced=1)

    def test_a_hole_before_an_announced_gap_is_a_loss(self) -> None:
        self.checker.begins(0)
        self.receive(1, 4)
        self.checker.begins(5, now=self.later())
        self.receive(6)
        self.assert_found(expected=5, delivered=3, lost=[2], announced=1)

    def test_a_hole_after_an_announced_gap_is_a_loss(self) -> None:
        self.checker.begins(0)
        self.receive(1)
        self.checker.begins(2)
        self.receive(4, 6)
        self.assert_found(expected=5, delivered=3, lost=[5], announced=1)

    def test_after_a_resync_everything_from_its_first_event_on_is_expected(self) -> None:
        self.checker.begins(0)
        self.receive(1)
        # Before anything was sent, as far as the truth knows.
        self.checker.resynced(6, now=-1.0)
        self.receive(4, 6)
        self.assert_found(expected=5, delivered=3, lost=[5], announced=1)

    def test_after_a_resync_what_is_published_later_is_expected(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2)
        self.checker.resynced(4, now=-1.0)
        self.assert_found(expected=5, delivered=2, lost=[5, 6], announced=1)

    def test_an_unknown_prev_is_counted_and_not_wrong(self) -> None:
        self.checker.begins(0)
        self.receive(1, 2, 4, 5)
        self.checker.event("a", 6, 0)
        self.assert_found(expected=5, delivered=5)
        # The first of each channel has none, either.
        self.assertEqual(self.checker.prev_unknown, 3)


class Contradictions(unittest.TestCase):
    def setUp(self) -> None:
        self.truth = published("a", "b")

    def test_what_was_published_is_no_contradiction(self) -> None:
        self.assertEqual(self.truth.observed(0, 1, "a"), 0.0)
        self.assertEqual(self.truth.observed(1, 2, "b"), 0.0)
        self.assertEqual(self.truth.contradictions, [])

    def test_another_message_at_a_position_is_one(self) -> None:
        self.truth.observed(0, 2, "a")
        self.assertEqual(len(self.truth.contradictions), 1)

    def test_another_channel_is_one(self) -> None:
        self.truth.observed(0, 1, "b")
        self.assertEqual(len(self.truth.contradictions), 1)

    def test_a_payload_that_was_never_published_is_one(self) -> None:
        for number in (2, -1, None, "0"):
            self.assertIsNone(self.truth.observed(number, 1, "a"))
        self.assertEqual(len(self.truth.contradictions), 4)

    def test_a_position_acknowledged_twice_is_one(self) -> None:
        self.truth.acknowledged(self.truth.published("a", 0.0), 2)
        self.assertEqual(len(self.truth.contradictions), 1)

    def test_what_was_given_up_is_neither_published_nor_pending(self) -> None:
        self.truth.given_up(self.truth.published("a", 0.0))
        self.assertEqual((self.truth.acknowledged_count(), self.truth.pending_count()), (2, 0))


class Announced(unittest.TestCase):
    def test_as_many_as_announced_come_up_to_the_acknowledgement(self) -> None:
        for positions, is_complete in [([3, 5], True), ([3], False), ([3, 4, 5], False)]:
            replayed = Replayed(5, 2)
            self.assertTrue(all(replayed.goes_on(pos) for pos in positions))
            self.assertFalse(replayed.goes_on(6))
            self.assertEqual(replayed.is_complete(), is_complete, positions)
