"""The summary of a run, as a dictionary for JSON and as text, and what of it is a failure."""

import collections
import dataclasses

from .interruptions import Window, percentile
from .lives import pos_of
from .plan import STREAM_KINDS, Done, Fault
from .removals import ranges
from .truth import Truth
from .verdict import Verdict, judge

INTERRUPTION_LIMIT_SECONDS = 5.0
# Several times what an instance takes with the recent log of two minutes at the default rate.
MEMORY_LIMIT_MB = 64.0
# Enough to see where to look.
EXAMPLES_MAX = 10


@dataclasses.dataclass
class Run:
    """What a run leaves behind."""

    options: dict
    begin: float
    plan: list[Fault]
    done: list[Done]
    outages: list[Window]
    truth: Truth
    clients: list
    lag: float
    broken: list[str]
    # The most that any instance ever had resident.
    memory_bytes: int = 0


def summarize(run: Run) -> dict:
    previous = run.truth.previous()
    verdicts = [judge(client.checker, run.truth, previous) for client in run.clients]
    summary = {
        "version": 1,
        "options": run.options,
        "faults": _faults(run),
        "messages": _messages(run, verdicts),
        "stream": _stream(run),
        "connections": _connections(run.clients),
        "interruptions": _interruptions(run),
        "delays": {
            "from_publishing_seconds": _longest(client.delay for client in run.clients),
            "from_store_seconds": _longest(client.delay_from_store for client in run.clients),
        },
        "memory_mb": round(run.memory_bytes / 1e6, 1),
        "harness_lag_seconds": round(run.lag, 3),
        "examples": _examples(run, verdicts),
        "broken": run.broken,
    }
    summary["failures"] = failures(summary)
    summary["passed"] = not summary["failures"]
    return summary


def failures(summary: dict) -> list[str]:
    """What a run must not show."""
    found = list(summary["broken"])
    messages, connections = summary["messages"], summary["connections"]
    # Operations on the stream take messages away: then the server has to say so, and no more.
    is_operated = any(kind in STREAM_KINDS for kind in summary["faults"]["kinds"])
    for name, text in {
        "lost": "deliveries were lost without a word",
        "told_late": "deliveries were lost, which was told after the position had passed them",
        "announced_lost": "deliveries were lost, which the server admitted",
        "false_claims": "resumes recovered, but a message after the position never came",
        "duplicated": "deliveries came twice",
        "out_of_order": "deliveries came out of order",
        "foreign": "deliveries of channels that were not subscribed",
        "wrong_prev": "events whose prev is not the channel's message before",
        "contradictions": "deliveries or acknowledgements contradict each other",
        "abandoned": "messages were never acknowledged: nothing is known of them",
    }.items():
        if messages[name] and not (name == "announced_lost" and is_operated):
            found.append(f"{messages[name]} {text}")
    if connections["recovered_missing"]:
        missing = connections["recovered_missing"]
        found.append(f"{missing} resumes were answered without `recovered`")
    if connections["errors"]:
        found.append(f"{connections['errors']} answers of the server were wrong")
    if not messages["expected"]:
        found.append("nothing was expected: the run shows nothing")
    if summary["faults"]["planned"] and not summary["faults"]["done"]:
        found.append("no fault was carried out: the run shows nothing")
    longest = summary["interruptions"]["max_seconds"]
    limit = summary["options"]["interruption_limit_seconds"]
    if limit is not None and longest >= limit:
        found.append(f"a client was interrupted for {longest} s, the limit is {limit} s")
    memory, limit = summary["memory_mb"], summary["options"]["memory_limit_mb"]
    if memory > limit:
        found.append(f"an instance took {memory} MB of memory, the limit is {limit} MB")
    if summary["faults"]["done"] and not memory:
        found.append("the memory of the instances was not measured")
    return found


def text(summary: dict) -> str:
    messages, connections = summary["messages"], summary["connections"]
    interruptions, faults, stream = summary["interruptions"], summary["faults"], summary["stream"]
    operations = ", ".join(f"{count} {kind}" for kind, count in stream["kinds"].items())
    kinds = ", ".join(f"{count} {kind}" for kind, count in faults["kinds"].items())
    reasons = ", ".join(f"{count} {name}" for name, count in connections["reasons"].items())
    rows = {
        "seed": summary["options"]["seed"],
        "faults": f"{faults['done']} of {faults['planned']} planned: {kinds or 'none'}",
        "published": f"{messages['published']} messages",
        "expected": f"{messages['expected']} deliveries",
        "delivered": messages["delivered"],
        "lost": messages["lost"],
        "told late": messages["told_late"],
        "lost, announced": (
            f"{messages['announced_lost']}, the stream had lost {messages['announced_removed']}"
        ),
        "false claims": messages["false_claims"],
        "false alarms": f"{messages['false_alarms']} of {messages['notices']} notices",
        "removed": f"{stream['removed']} messages by {operations or 'nothing'}",
        "duplicated": messages["duplicated"],
        "repeated": f"{messages['repeated']}, and {messages['overtaken']} came after later ones",
        "out of order": messages["out_of_order"],
        "wrong prev": messages["wrong_prev"],
        "prev unknown": messages["prev_unknown"],
        "connections lost": f"{connections['losses']}: {reasons or 'none'}",
        "moved at a drain": connections["moved"],
        "resumes": (
            f"{connections['resumes']}: {connections['recovered']} recovered, "
            f"{connections['not_recovered']} not, "
            f"{connections['recovered_missing']} without an answer to it"
        ),
        "resyncs": connections["resyncs"],
        "interruption": (
            f"max {interruptions['max_seconds']} s, p99 {interruptions['p99_seconds']} s, "
            f"median {interruptions['median_seconds']} s (longest of each client)"
        ),
        "without a broker": (
            f"{interruptions['outage_seconds']} s, not counted; "
            f"max with them {interruptions['max_with_outages_seconds']} s"
        ),
        "longest delay": (
            f"{summary['delays']['from_publishing_seconds']} s from publishing, "
            f"{summary['delays']['from_store_seconds']} s from the broker's store"
        ),
        "memory": f"{summary['memory_mb']} MB resident at most, of an instance",
        "harness lag": f"{summary['harness_lag_seconds']} s, contained in the above",
    }
    lines = [f"{name:>17}  {value}" for name, value in rows.items()]
    lines += [f"{'example':>17}  {example}" for example in summary["examples"]]
    lines += [f"{'FAILED':>17}  {failure}" for failure in summary["failures"]]
    return "\n".join(lines + ["" if summary["failures"] else f"{'passed':>17}"]).rstrip()


def _faults(run: Run) -> dict:
    kinds = collections.Counter(done.fault.kind for done in run.done)
    return {
        "planned": len(run.plan),
        "done": len(run.done),
        "kinds": dict(sorted(kinds.items())),
        "list": [
            dataclasses.asdict(done.fault)
            | {"began": round(done.began, 1), "recovered": round(done.recovered, 1)}
            for done in run.done
        ],
    }


def _messages(run: Run, verdicts: list[Verdict]) -> dict:
    checkers = [client.checker for client in run.clients]
    return {
        "published": run.truth.acknowledged_count(),
        "abandoned": len(run.truth.abandoned) + run.truth.pending_count(),
        "expected": sum(verdict.expected for verdict in verdicts),
        "delivered": sum(verdict.delivered for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "told_late": sum(len(verdict.told_late) for verdict in verdicts),
        "announced_lost": sum(len(verdict.announced) for verdict in verdicts),
        "announced_removed": sum(
            run.truth.removals.has(mark) for verdict in verdicts for mark in verdict.announced
        ),
        "false_claims": sum(len(verdict.false_claims) for verdict in verdicts),
        "false_alarms": sum(verdict.false_alarms for verdict in verdicts),
        "notices": sum(verdict.notices for verdict in verdicts),
        "duplicated": sum(checker.duplicated for checker in checkers),
        "repeated": sum(checker.repeated for checker in checkers),
        "overtaken": sum(checker.overtaken for checker in checkers),
        "out_of_order": sum(checker.out_of_order for checker in checkers),
        "foreign": sum(checker.foreign for checker in checkers),
        "wrong_prev": sum(len(verdict.wrong_prev) for verdict in verdicts),
        "prev_unknown": sum(checker.prev_unknown for checker in checkers),
        "contradictions": len(run.truth.contradictions),
    }


def _stream(run: Run) -> dict:
    """What the operations on the stream took out of it."""
    kinds: collections.Counter[str] = collections.Counter()
    for removal in run.truth.removals.all:
        kinds[removal.kind] += len(removal.marks)
    return {
        "removed": run.truth.removals.count(),
        "taken": len(run.truth.removals.taken),
        "kinds": dict(sorted(kinds.items())),
        "list": [
            {
                "kind": removal.kind,
                "at": round(removal.at - run.begin, 1),
                "positions": ranges(removal.marks),
            }
            for removal in run.truth.removals.all
        ],
    }


def _connections(clients: list) -> dict:
    counts = sum((client.counts for client in clients), collections.Counter())
    named = ("reason ", "resync ", "closed with ")
    reasons = {name: count for name, count in sorted(counts.items()) if name.startswith(named)}
    for name in ("cut off", "holes in seq", "failed attempts"):
        if counts[name]:
            reasons[name] = counts[name]
    return {
        "losses": counts["losses"],
        "moved": counts["moved before the end"],
        "draining": counts["draining"],
        "resumes": counts["resumes"],
        "recovered": counts["recovered"],
        "not_recovered": counts["not recovered"],
        "recovered_missing": counts["recovered missing"],
        "resyncs": counts["resyncs"],
        "errors": sum(len(client.errors) for client in clients),
        "reasons": reasons,
    }


def _interruptions(run: Run) -> dict:
    longest = [client.interruptions.longest(run.outages) for client in run.clients]
    return {
        "max_seconds": _longest(longest),
        "p99_seconds": round(percentile(longest, 0.99), 3),
        "median_seconds": round(percentile(longest, 0.5), 3),
        "max_with_outages_seconds": _longest(
            client.interruptions.longest([]) for client in run.clients
        ),
        "outage_seconds": round(sum(end - begin for begin, end in run.outages), 1),
    }


def _examples(run: Run, verdicts: list[Verdict]) -> list[str]:
    def describe(mark: int) -> str:
        return run.truth.describe(mark, run.begin)

    found = list(run.truth.contradictions)
    found += [
        f"client {client.number} recovered at {pos_of(false.claim.after)}, "
        f"and never got {describe(false.missing)}"
        for client, verdict in zip(run.clients, verdicts)
        for false in verdict.false_claims[:1]
    ][: EXAMPLES_MAX // 2]
    for client, verdict in zip(run.clients, verdicts):
        name = f"client {client.number}"
        found += [f"{name} lost {describe(mark)}" for mark in verdict.lost[:2]]
        found += [f"{name} was told late of {describe(mark)}" for mark in verdict.told_late[:1]]
        found += [f"{name}: {wrong}" for wrong in verdict.wrong_prev[:2] + client.errors[:2]]
    return found[:EXAMPLES_MAX]


def _longest(values) -> float:
    return round(max(values, default=0.0), 3)
