"""What was done to the stream, and what the server said of it: which losses are announced, and
which claims are false."""

import unittest

from ..checker import Checker
from ..lives import Lives, life_of, pos_of
from ..truth import Truth
from ..verdict import Verdict, judge

# Wall-clock time at which older stores are put back; what is stored in the first life is older.
RESTORED_MS = 1_000.0


class Marks(unittest.TestCase):
    def test_a_position_that_is_given_out_again_is_another_place(self) -> None:
        lives = Lives()
        old = lives.mark(5)
        lives.restored(3, RESTORED_MS)
        new = lives.mark(5)
        self.assertEqual((old, pos_of(new), life_of(new)), (5, 5, 1))
        self.assertGreater(new, old)
        self.assertEqual(lives.mark(5, ts=RESTORED_MS - 1), old)
        self.assertEqual(lives.mark(5, ts=RESTORED_MS + 1), new)

    def test_what_an_older_store_kept_stays_the_same_place(self) -> None:
        lives = Lives()
        lives.restored(3, RESTORED_MS)
        lives.restored(6, RESTORED_MS + 1)
        self.assertEqual([life_of(lives.mark(pos)) for pos in (3, 4, 6, 7)], [0, 1, 1, 2])
        self.assertEqual([lives.is_in(3, 2), lives.is_in(4, 0), lives.is_in(4, 1)], [1, 1, 0])

    def test_a_store_older_than_the_one_before_takes_more_away(self) -> None:
        lives = Lives()
        lives.restored(6, RESTORED_MS)
        seventh = lives.mark(7)
        lives.restored(3, RESTORED_MS + 1)
        self.assertEqual([life_of(lives.mark(pos)) for pos in (3, 4, 7)], [0, 2, 2])
        self.assertEqual([lives.is_in(5, 1), lives.is_in(5, 2), lives.is_in(seventh, 2)], [1, 0, 0])


class Told(unittest.TestCase):
    """Channel a has the positions 1, 3, 5, …, and b the others. One is published each second."""

    def setUp(self) -> None:
        self.truth = Truth()
        self.now = 0.0
        self.publish(10)
        self.checker = Checker({"a", "b"})
        self.checker.begins(0, now=self.now)

    def publish(self, count: int, begin: int | None = None) -> None:
        newest = pos_of(self.truth.newest) if begin is None else begin - 1
        for pos in range(newest + 1, newest + count + 1):
            self.now += 1
            number = self.truth.published("ab"[pos % 2 == 0], self.now)
            self.truth.acknowledged(number, pos)

    def receive(self, *marks: int, prev: int | None = None) -> None:
        """With the right `prev`, unless it is given."""
        previous = self.truth.previous()
        for mark in marks:
            before = previous[mark] if prev is None else prev
            self.checker.event(self.truth.channel_of(mark), mark, before, self.now)

    def resync(self) -> None:
        self.checker.resynced(self.truth.newest, self.truth.lives.current(), self.now)

    def verdict(self) -> Verdict:
        return judge(self.checker, self.truth, self.truth.previous())

    def assert_missing(self, lost=(), told_late=(), announced=()) -> None:
        verdict = self.verdict()
        found = verdict.lost, verdict.told_late, verdict.announced
        self.assertEqual(found, (list(lost), list(told_late), list(announced)))

    def test_a_loss_that_nobody_told_is_lost_also_if_the_stream_had_lost_it(self) -> None:
        self.truth.removed("delete", self.now, {5})
        self.receive(1, 2, 3, 4)
        self.receive(7, prev=0)
        self.receive(6, 8, 9, 10)
        self.assert_missing(lost=[5])
        self.assertIn("removed by delete", self.truth.describe(5, 0.0))

    def test_a_loss_is_announced_by_a_resync_before_the_position_passes_it(self) -> None:
        self.truth.removed("delete", self.now, {5})
        self.receive(1, 2, 3, 4)
        self.receive(6, prev=0)
        self.receive(7, prev=0)
        self.now += 5
        self.resync()
        self.assert_missing(announced=[5, 8, 9, 10])
        self.assertEqual(self.verdict().false_alarms, 0)

    def test_a_loss_is_announced_by_prev_0_on_its_channel_and_a_resync_soon(self) -> None:
        for patience, lost, announced in [(5, [], [5]), (7, [5], [])]:
            self.setUp()
            self.truth.removed("delete", self.now, {5})
            self.receive(1, 2, 3, 4)
            self.receive(6, prev=4)
            self.receive(7, prev=0)
            self.receive(8, 9, 10)
            self.now += patience
            self.resync()
            self.assert_missing(lost=lost, announced=announced)

    def test_a_resync_soon_after_the_position_has_passed_a_loss_is_late(self) -> None:
        for patience, kind in [(5, "told_late"), (7, "lost")]:
            self.setUp()
            self.receive(1, 2, 3, 4, 6, 8, 10)
            self.now += patience
            self.resync()
            self.assert_missing(**{kind: [5, 7, 9]})

    def test_a_heartbeat_that_passes_a_loss_is_the_same(self) -> None:
        self.receive(1, 2, 3, 4)
        self.checker.reaches(8, self.now)
        self.now += 7
        self.resync()
        self.assert_missing(lost=[5, 6, 7, 8], announced=[9, 10])

    def test_what_was_sent_before_a_resync_is_loaded(self) -> None:
        self.resync()
        self.receive(1, 2)
        self.receive(3, 4, prev=0)
        self.publish(4)
        self.receive(11, prev=0)
        self.receive(13, 14)
        # 5 to 10 were sent before it, 12 was not.
        self.assert_missing(lost=[12], announced=[5, 6, 7, 8, 9, 10])
        self.assertEqual(self.verdict().false_alarms, 1)

    def test_recovered_without_a_message_that_never_comes_is_a_false_claim(self) -> None:
        self.receive(1, 2, 3, 4)
        self.checker.resumed(4, 8)
        self.receive(6, 7, 8, 9, 10)
        (false,) = self.verdict().false_claims
        self.assertEqual((false.claim.after, false.missing), (4, 5))
        # A word afterwards does not make it true.
        self.resync()
        self.assertEqual(len(self.verdict().false_claims), 1)

    def test_recovered_is_no_false_claim_about_what_comes_after_the_answer(self) -> None:
        self.receive(1, 2, 3, 4)
        self.checker.resumed(4, 4)
        self.receive(6, 7, 8, 9, 10)
        self.assertEqual(self.verdict().false_claims, [])
        self.assert_missing(lost=[5])

    def test_what_was_told_before_is_not_claimed_by_a_later_resume(self) -> None:
        self.receive(1, 2, 3, 4)
        self.resync()
        self.checker.reaches(10, self.now)
        self.publish(2)
        self.checker.resumed(10, 12)
        self.receive(11, 12)
        self.assertEqual(self.verdict().false_claims, [])
        self.assert_missing(announced=[5, 6, 7, 8, 9, 10])

    def test_prev_is_the_message_before_also_if_it_was_removed(self) -> None:
        self.truth.removed("purge", self.now, {1, 2, 3, 4, 5})
        self.receive(6, prev=4)
        self.receive(7, prev=5)
        self.receive(8, 9, 10)
        self.assertEqual(self.verdict().wrong_prev, [])
        self.receive(9, prev=3)
        self.assertEqual(len(self.verdict().wrong_prev), 1)

    def test_without_a_position_behind_it_an_event_may_be_repeated(self) -> None:
        self.receive(1, 2, 3, 4)
        self.receive(5, 6, prev=0)
        self.checker.resumed(4, 6)
        self.receive(5, 6, prev=0)
        self.receive(7, 8, 9, 10)
        self.assert_missing()
        self.assertEqual((self.checker.repeated, self.checker.duplicated), (2, 0))
        self.checker.resumed(10, 10)
        self.receive(10)
        self.assertEqual((self.checker.repeated, self.checker.duplicated), (2, 1))

    def test_what_an_instance_lacked_may_come_from_another_one_later(self) -> None:
        self.receive(1, 2, 3, 4)
        self.receive(7, prev=0)
        self.checker.resumed(4, 7)
        self.receive(5, 6, 7, 8, 9, 10)
        self.assert_missing()
        found = self.checker.overtaken, self.checker.repeated, self.checker.out_of_order
        self.assertEqual(found, (1, 1, 0))

    def test_a_notice_without_a_loss_is_a_false_alarm(self) -> None:
        self.receive(*range(1, 11))
        self.resync()
        verdict = self.verdict()
        self.assertEqual((verdict.notices, verdict.false_alarms), (1, 1))

    def test_what_was_skipped_though_the_stream_has_it_makes_no_alarm_right(self) -> None:
        self.receive(1, 2, 3, 4)
        self.checker.told()
        self.checker.begins(8, now=self.now)
        self.receive(9, 10)
        self.assert_missing(announced=[5, 6, 7, 8])
        self.assertEqual(self.verdict().false_alarms, 1)

    def test_an_older_store_that_is_told_loses_nothing_silently(self) -> None:
        self.receive(*range(1, 9))
        lost = self.truth.restored(6, self.now, RESTORED_MS)
        self.assertEqual(lost, {7, 8, 9, 10})
        self.resync()
        self.publish(4)
        self.receive(*self.marks(7, 8, 9, 10))
        # 9 and 10 of the first life are gone; of the second everything came.
        self.assert_missing(announced=[9, 10])
        verdict = self.verdict()
        self.assertEqual((verdict.wrong_prev, verdict.false_alarms), ([], 0))

    def test_positions_given_out_again_untold_are_lost(self) -> None:
        self.receive(*range(1, 11))
        self.truth.restored(6, self.now, RESTORED_MS)
        self.publish(6)
        self.receive(*self.marks(11, 12))
        self.assert_missing(lost=self.marks(7, 8, 9, 10))

    def test_positions_given_out_again_are_ignored_by_who_takes_them_for_repetitions(self) -> None:
        self.receive(*range(1, 11))
        self.truth.restored(6, self.now, RESTORED_MS)
        self.publish(4)
        self.receive(*self.marks(7, 8, 9, 10))
        self.assert_missing(lost=self.marks(7, 8, 9, 10))

    def test_a_resume_from_a_position_that_was_given_out_again_is_a_false_claim(self) -> None:
        self.receive(*range(1, 11))
        self.truth.restored(6, self.now, RESTORED_MS)
        self.publish(6)
        self.checker.resumed(10, self.truth.newest, self.truth.lives.current())
        self.receive(*self.marks(11, 12))
        (false,) = self.verdict().false_claims
        self.assertEqual(false.missing, self.marks(7)[0])

    def test_after_an_older_store_prev_is_what_the_store_has(self) -> None:
        self.receive(*range(1, 11))
        self.truth.restored(6, self.now, RESTORED_MS)
        self.resync()
        self.publish(1)
        for prev, wrong in [(5, 0), (9, 1)]:
            self.receive(*self.marks(7), prev=prev)
            self.assertEqual(len(self.verdict().wrong_prev), wrong)

    def test_who_goes_back_is_owed_no_more_than_what_the_stream_has(self) -> None:
        self.truth.removed("delete", self.now, {5})
        self.receive(1, 2, 3, 4)
        self.resync()
        self.receive(6, prev=0)
        self.receive(7, 8, 9, 10)
        self.resync()
        self.receive(1, 2, 3, 4)
        self.receive(6, prev=0)
        self.receive(7, 8, 9, 10)
        self.assert_missing(announced=[5])

    def marks(self, *positions: int) -> list[int]:
        return [self.truth.lives.mark(pos) for pos in positions]
