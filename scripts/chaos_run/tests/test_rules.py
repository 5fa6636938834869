"""Positions, interruptions, channels and the plan."""

import unittest

from .. import channels, options, plan
from ..interruptions import Interruptions, percentile
from ..position import Position


def place(pos: int) -> dict:
    return {"epoch": "E", "pos": pos, "ts": pos * 10}


class Positions(unittest.TestCase):
    def setUp(self) -> None:
        self.position = Position()

    def test_before_the_first_subscription_there_is_none(self) -> None:
        self.assertIsNone(self.position.resume())

    def test_without_an_event_it_is_that_of_the_acknowledgement(self) -> None:
        self.position.subscribed(place(5))
        self.assertEqual(self.position.resume(), place(5))

    def test_it_follows_the_events_that_have_prev(self) -> None:
        self.position.subscribed(place(5))
        for prev, pos, expected in [(3, 7, 7), (0, 8, 7), (7, 6, 7), (7, 9, 9)]:
            self.position.event(place(pos) | {"prev": prev})
            self.assertEqual(self.position.resume(), place(expected))

    def test_it_moves_forward_with_what_heartbeats_say(self) -> None:
        self.position.subscribed(place(5))
        self.position.reached(place(9))
        self.assertEqual(self.position.resume(), place(9))
        for position in (place(7), place(20) | {"epoch": "F"}):
            self.position.reached(position)
            self.assertEqual(self.position.resume(), place(9))

    def test_it_stays_if_it_was_recovered_until_something_moves_it(self) -> None:
        self.position.subscribed(place(5))
        for messages in (0, 2):
            recovered = {"recovered": True, "resume": {"messages": messages}}
            self.position.subscribed(place(9) | recovered)
            self.assertEqual(self.position.resume(), place(5))
        self.position.reached(place(9))
        self.assertEqual(self.position.resume(), place(9))

    def test_it_moves_if_it_was_not_recovered(self) -> None:
        self.position.subscribed(place(5))
        refused = {"recovered": False, "resume": {"reason": "position_too_old"}}
        self.position.subscribed(place(9) | refused)
        self.assertEqual(self.position.resume(), place(9))

    def test_after_a_resync_there_is_none_until_an_event_with_prev_or_a_heartbeat(self) -> None:
        def event() -> None:
            self.position.event(place(2) | {"prev": 1})

        def heartbeat() -> None:
            self.position.reached(place(2) | {"epoch": "F"})

        def answer() -> None:
            self.position.subscribed(place(2) | {"epoch": "F"})

        for moves in (event, heartbeat, answer):
            self.position.subscribed(place(5))
            self.position.resynced({"epoch": "F", "reason": "stream_recreated"})
            self.position.event(place(1) | {"prev": 0})
            self.position.subscribed(place(9) | {"recovered": True, "resume": {"messages": 0}})
            self.assertIsNone(self.position.resume())
            moves()
            self.assertEqual(self.position.resume(), place(2) | {"epoch": "F"})

    def test_the_source_brings_the_epoch_that_was_not_known(self) -> None:
        self.position.subscribed({"epoch": None, "pos": 0, "ts": 0})
        self.assertIsNone(self.position.resume())
        self.position.source_live(place(4))
        self.assertIsNone(self.position.resume())
        self.position.reached(place(4))
        self.assertEqual(self.position.resume(), place(4))


class Interrupted(unittest.TestCase):
    def test_the_longest_counts_and_the_way_to_the_first_subscription_is_none(self) -> None:
        interruptions = Interruptions()
        interruptions.up(3)
        for begin, end in [(10, 11), (20, 24), (30, 32)]:
            interruptions.down(begin)
            interruptions.down(begin + 0.5)
            interruptions.up(end)
        self.assertEqual(interruptions.longest([]), 4)

    def test_what_lies_in_an_outage_does_not_count(self) -> None:
        interruptions = Interruptions([(10, 14), (20, 23)])
        self.assertEqual(interruptions.longest([(0, 1), (9, 12), (13, 15)]), 3)
        self.assertEqual(interruptions.longest([(0, 30)]), 0)

    def test_what_a_client_was_away_on_purpose_does_not_count(self) -> None:
        interruptions = Interruptions()
        interruptions.excused(5)
        interruptions.down(10)
        interruptions.excused(14)
        interruptions.up(16)
        self.assertEqual(interruptions.longest([]), 2)

    def test_percentiles_are_values_that_occur(self) -> None:
        values = [float(value) for value in range(1, 201)]
        self.assertEqual(percentile(values, 0.5), 100)
        self.assertEqual(percentile(values, 0.99), 198)
        self.assertEqual(percentile([7.0], 0.99), 7)
        self.assertEqual(percentile([], 0.5), 0)


class Covered(unittest.TestCase):
    def test_patterns_cover_what_they_match_and_each_channel_counts_once(self) -> None:
        names = channels.names(8)
        one = "odin.token.T1.trade"
        self.assertEqual(channels.covered([one], names), {one})
        self.assertEqual(channels.covered([one, "odin.token.T1.*"], names), set(names[4:]))
        both = {"odin.token.T0.trade", one}
        self.assertEqual(channels.covered([one, "odin.token.*.trade"], names), both)

    def test_what_a_client_subscribes_to_follows_from_the_seed(self) -> None:
        names = channels.names(40)
        chosen = [[channels.subscriptions(seed, 1, names, 4) for _ in "12"] for seed in (1, 2)]
        self.assertEqual(chosen[0][0], chosen[0][1])
        self.assertNotEqual(chosen[0][0], chosen[1][0])


class Plans(unittest.TestCase):
    def test_the_same_seed_is_the_same_plan(self) -> None:
        first, second, other = (plan.draw(seed, 120, list(plan.KINDS), 2, 3) for seed in (1, 1, 2))
        self.assertEqual(first, second)
        self.assertNotEqual(first, other)

    def test_a_longer_run_begins_like_a_shorter_one(self) -> None:
        short, long = (plan.draw(7, seconds, list(plan.KINDS), 2, 3) for seconds in (60, 600))
        self.assertEqual(short, long[: len(short)])

    def test_all_kinds_occur_within_a_minute_and_all_victims_exist(self) -> None:
        for seed in range(50):
            faults = plan.draw(seed, 60, list(plan.KINDS), 2, 3)
            self.assertEqual({fault.kind for fault in faults}, set(plan.KINDS))
            for fault in faults:
                victims = 3 if plan.track_of(fault.kind) == "broker" else 2
                self.assertLess(fault.target, victims)
                self.assertLess(fault.at, 60)

    def test_only_what_was_chosen_occurs(self) -> None:
        faults = plan.draw(1, 60, ["broker-kill"], 2, 3)
        self.assertEqual({fault.kind for fault in faults}, {"broker-kill"})

    def test_operations_on_the_stream_change_nothing_about_the_other_tracks(self) -> None:
        kinds = list(plan.DEFAULT_KINDS)
        with_them = plan.draw(7, 60, [*kinds, *plan.TRACKS["stream"]], 2, 3)
        others = [fault for fault in with_them if fault.kind in kinds]
        self.assertEqual(others, plan.draw(7, 60, kinds, 2, 3))

    def test_operations_are_done_in_all_ways_and_mostly_while_an_instance_is_held_up(self) -> None:
        faults = plan.draw(1, 3_000, list(plan.STREAM_KINDS), 2, 1)
        for kind, ways in plan.WAYS.items():
            drawn = [fault for fault in faults if fault.kind == kind]
            self.assertEqual({fault.way for fault in drawn}, set(ways))
            self.assertEqual({fault.target for fault in drawn}, {0, 1})
            low, high = plan.AMOUNT[kind]
            self.assertTrue(all(low <= fault.amount <= high for fault in drawn))
            held = [fault for fault in drawn if fault.hold]
            self.assertEqual(len(held) > len(drawn) * 0.6, kind != "take")
            self.assertTrue(all(fault.hold <= 2 and fault.consumer for fault in held))
        restored = [fault for fault in faults if fault.kind == "restore"]
        self.assertEqual({fault.target for fault in restored}, {0, 1})
        self.assertTrue(all(fault.age and fault.away for fault in restored))

    def test_each_fault_says_what_it_is(self) -> None:
        faults = plan.draw(1, 3_000, list(plan.KINDS), 2, 3)
        texts = [str(fault) for fault in faults]
        for part in ("purged by keep", "all messages purged", "secure", "edited for", "taken from"):
            self.assertTrue(any(part in text for text in texts), part)
        for fault, text in zip(faults, texts):
            self.assertEqual("SIGSTOP to broker" in text, fault.kind == "broker-pause")
            self.assertEqual("held up" in text, fault.hold > 0)


class Chosen(unittest.TestCase):
    def parse(self, *arguments: str):
        own = [f"--{name}=-" for name in ("binary", "haproxy", "nats-server", "folder")]
        return options.parse([*own, *arguments])

    def test_operations_on_the_stream_are_done_only_if_they_are_asked_for(self) -> None:
        for nodes in ("1", "3"):
            self.assertFalse(set(self.parse("--nodes", nodes).faults) & set(plan.STREAM_KINDS))
        chosen = self.parse("--nodes", "1", "--faults", ",".join(plan.STREAM_KINDS))
        self.assertEqual(chosen.faults, list(plan.STREAM_KINDS))

    def test_an_older_store_is_left_out_of_a_cluster(self) -> None:
        chosen = self.parse("--faults", "purge,restore")
        self.assertEqual((chosen.faults, chosen.left_out), (["purge"], ["restore"]))
