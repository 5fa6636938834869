"""What of a summary is a failure."""

import types
import unittest
from collections import Counter

from ..checker import Checker
from ..interruptions import Interruptions
from ..plan import STREAM_KINDS, Done, Fault
from ..summary import Run, failures, summarize, text
from ..truth import Truth


def good_run() -> Run:
    truth = Truth()
    truth.acknowledged(truth.published("a", 0.0), 1)
    checker = Checker({"a"})
    checker.begins(0)
    checker.event("a", 1, 0)
    client = types.SimpleNamespace(
        number=0,
        checker=checker,
        interruptions=Interruptions([(1.0, 2.0)]),
        counts=Counter({"losses": 1, "cut off": 1, "resumes": 1, "recovered": 1}),
        errors=[],
        delay=0.5,
        delay_from_store=0.25,
    )
    fault = Fault(1.0, "client-cut")
    options = {"seed": 7, "interruption_limit_seconds": 5.0, "memory_limit_mb": 100.0}
    done = [Done(fault, 1.0, 2.0)]
    return Run(options, 0.0, [fault], done, [], truth, [client], 0.0, [], 99_900_000)


class Failures(unittest.TestCase):
    def test_a_good_run_passes(self) -> None:
        summary = summarize(good_run())
        self.assertEqual((summary["failures"], summary["passed"]), ([], True))
        self.assertIn("passed", text(summary))

    def test_each_thing_that_must_not_be_fails(self) -> None:
        names = ("lost", "announced_lost", "duplicated", "out_of_order", "foreign", "wrong_prev")
        for name in (*names, "told_late", "false_claims", "contradictions", "abandoned"):
            summary = summarize(good_run())
            summary["messages"][name] = 3
            self.assertEqual(len(failures(summary)), 1, name)
            self.assertTrue(failures(summary)[0].startswith("3 "), name)
        for name in ("recovered_missing", "errors"):
            summary = summarize(good_run())
            summary["connections"][name] = 3
            self.assertEqual(len(failures(summary)), 1, name)

    def test_what_is_no_failure_is_only_counted(self) -> None:
        summary = summarize(good_run())
        for name in ("false_alarms", "notices", "repeated", "overtaken", "prev_unknown"):
            summary["messages"][name] = 3
        self.assertEqual(failures(summary), [])

    def test_announced_losses_are_no_failure_if_the_stream_was_operated_on(self) -> None:
        for kind in STREAM_KINDS:
            run = good_run()
            run.done = [Done(Fault(1.0, kind), 1.0, 2.0)]
            summary = summarize(run)
            summary["messages"]["announced_lost"] = 3
            self.assertEqual(failures(summary), [], kind)
            for name in ("lost", "told_late", "false_claims", "wrong_prev", "duplicated"):
                self.assertEqual(len(failures(summary)), 0, name)
                summary["messages"][name] = 3
                self.assertEqual(len(failures(summary)), 1, name)
                summary["messages"][name] = 0

    def test_a_false_claim_fails_and_is_named(self) -> None:
        run = good_run()
        run.truth.acknowledged(run.truth.published("a", 3.0), 2)
        run.truth.removed("purge", 4.0, {2})
        run.clients[0].checker.resumed(1, 2)
        summary = summarize(run)
        self.assertEqual(summary["messages"]["false_claims"], 1)
        example = "client 0 recovered at 1, and never got a at 2, sent at 3.0 s, removed by purge"
        self.assertIn(f"{example} at 4.0 s", summary["examples"])
        removal = {"kind": "purge", "at": 4.0, "positions": "2"}
        self.assertEqual(summary["stream"]["list"], [removal])
        self.assertIn("1 messages by 1 purge", text(summary))

    def test_a_message_that_did_not_come_fails_and_is_named(self) -> None:
        run = good_run()
        run.truth.acknowledged(run.truth.published("a", 3.0), 2)
        summary = summarize(run)
        self.assertEqual(summary["messages"]["lost"], 1)
        self.assertEqual(summary["examples"], ["client 0 lost a at 2, sent at 3.0 s"])
        self.assertIn("FAILED  1 deliveries were lost", text(summary))

    def test_an_interruption_of_five_seconds_fails_unless_there_was_no_broker(self) -> None:
        run = good_run()
        run.clients[0].interruptions.windows.append((10.0, 15.0))
        self.assertEqual(len(summarize(run)["failures"]), 1)
        run.outages = [(10.0, 10.5)]
        self.assertEqual(summarize(run)["failures"], [])

    def test_without_a_limit_interruptions_do_not_fail(self) -> None:
        run = good_run()
        run.clients[0].interruptions.windows.append((10.0, 15.0))
        run.options["interruption_limit_seconds"] = None
        self.assertTrue(summarize(run)["passed"])

    def test_memory_over_the_limit_fails_and_so_does_none_at_all(self) -> None:
        run = good_run()
        run.memory_bytes = 100_100_000
        self.assertEqual(len(summarize(run)["failures"]), 1)
        self.assertIn("100.1 MB", summarize(run)["failures"][0])
        run.memory_bytes = 0
        self.assertEqual(len(summarize(run)["failures"]), 1)

    def test_a_run_that_shows_nothing_fails(self) -> None:
        run = good_run()
        run.clients = []
        self.assertEqual(len(summarize(run)["failures"]), 1)
        run = good_run()
        run.done = []
        self.assertEqual(len(summarize(run)["failures"]), 1)

    def test_what_broke_fails(self) -> None:
        run = good_run()
        run.broken = ["instance 0 ended by itself with 1"]
        self.assertEqual(summarize(run)["failures"], run.broken)
