"""The plan of faults: what is done when and to whom, derived from the seed alone."""

import dataclasses
import random

# Faults of one track follow each other, each after the one before has been recovered from; the
# tracks run side by side.
TRACKS = {
    "instance": ("instance-kill", "instance-term"),
    "broker": ("broker-kill", "broker-pause", "broker-step-down", "restore"),
    "client": ("client-cut", "balancer-cut"),
    "stream": ("delete", "purge", "edit", "take"),
}
KINDS = tuple(kind for kinds in TRACKS.values() for kind in kinds)
# Operations on the stream: messages may be lost, so they are done only if asked for.
STREAM_KINDS = (*TRACKS["stream"], "restore")
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind not in STREAM_KINDS)
# Faults that need a cluster of brokers, and faults that need a single one: in a cluster the other
# brokers would fill an older store up again.
CLUSTER_KINDS = ("broker-step-down",)
SINGLE_KINDS = ("restore",)

# Seconds between the starts of two faults of a track, or after one of a kind, and before the first.
GAP_SECONDS = {"instance": (5, 9), "broker": (5, 9), "client": (3, 7), "stream": (1, 3)}
GAP_SECONDS |= {"restore": (8, 14)}
FIRST_SECONDS = (1, 4)
# Seconds that the victim stays away, by kind: a broker's silence is noticed after 4.5 s.
AWAY_SECONDS = {
    "instance-kill": (0.2, 3),
    "broker-kill": (0.5, 4),
    "broker-pause": (1, 8),
    "restore": (0.2, 1),
}
# The share of clients that a cut hits.
CUT_SHARE = (0.1, 1)
# How each kind of operation is done.
WAYS = {
    "delete": ("newest", "recent", "erase"),
    "purge": ("subject", "keep", "seq", "all"),
    "edit": ("max_msgs_per_subject", "allow_rollup_hdrs", "max_msgs", "max_age"),
    "take": ("batch",),
}
DELETED = {"newest": "the newest", "recent": "any recent", "erase": "any recent, secure erase"}
# Messages that are deleted, kept by a purge, or taken; and those per subject or of all that the
# edited stream holds.
AMOUNT = {"delete": (1, 12), "purge": (0, 20), "take": (1, 20), "edit": (1, 5)}
# Of so many operations one is done while no instance is held up; and for how long one is.
HOLD_SHARE = 0.75
HOLD_SECONDS = (0.2, 2)
# In so many of them the consumer is deleted. If that is done while settings are edited, the
# instance makes its next one by them, and goes on by them through the operations that follow.
DELETED_SHARE = {"edit": 0.75, "delete": 0.25, "purge": 0.25, "restore": 0.25, "take": 0}
# The share of clients that are away while something is done to the stream.
LEAVE_SHARE = (0, 0.5)
# How long edited settings stay, and how old the store is that is put back.
AGE_SECONDS = {"edit": (0.5, 3), "restore": (0.3, 1)}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: `at` is in seconds from the begin of the run."""

    at: float
    kind: str
    target: int = 0
    away: float = 0.0
    share: float = 0.0
    # Of operations on the stream: which way, how many messages, how long the target is held up, and
    # how long an edit lasts or how old the older store is.
    way: str = ""
    amount: int = 0
    hold: float = 0.0
    age: float = 0.0
    # What becomes of the consumer of an instance that is held up.
    consumer: str = ""

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind:16}  {_text(self)}"


def _text(fault: Fault) -> str:
    held = f", instance {fault.target} held up for {fault.hold:.1f} s, consumer {fault.consumer}"
    match fault.kind:
        case "broker-step-down":
            return "the stream's leader steps down"
        case "client-cut":
            return f"{fault.share:.0%} of the clients drop their connection"
        case "balancer-cut":
            return f"the balancer drops the connections to instance {fault.target}"
        case "instance-term":
            return f"rolling restart by SIGTERM, instance {fault.target} first"
        case "instance-kill":
            return f"SIGKILL to instance {fault.target}, away for {fault.away:.1f} s"
        case "broker-kill":
            return f"SIGKILL to broker {fault.target}, away for {fault.away:.1f} s"
        case "broker-pause":
            return f"SIGSTOP to broker {fault.target} for {fault.away:.1f} s"
        case "restore":
            text = f"a store {fault.age:.1f} s older, the broker away for {fault.away:.1f} s"
        case "delete":
            text = f"{fault.amount} messages deleted, {DELETED[fault.way]}"
        case "purge":
            text = f"messages purged by {fault.way}" + f" {fault.amount}" * (fault.way == "keep")
            text = "all messages purged" if fault.way == "all" else text
        case "edit":
            text = f"{fault.way} edited for {fault.age:.1f} s"
        case _:
            text = f"{fault.amount} messages taken from the consumer of instance {fault.target}"
    away = f", {fault.share:.0%} of the clients away"
    return text + held * (fault.hold > 0) + away * (fault.share > 0)


@dataclasses.dataclass(frozen=True)
class Done:
    """A fault that was carried out: when it began, and when all was well again."""

    fault: Fault
    began: float
    recovered: float


def track_of(kind: str) -> str:
    return next(track for track, kinds in TRACKS.items() if kind in kinds)


def draw(seed: int, seconds: float, kinds: list[str], instances: int, nodes: int) -> list[Fault]:
    """The faults of a run of so many seconds, in the order of their time.

    Each track draws its kinds like cards from a pack, so that none is missed for long.
    """
    faults = []
    for track, members in TRACKS.items():
        pack = [kind for kind in members if kind in kinds]
        if not pack:
            continue
        chance = random.Random(f"{seed}/{track}")
        at, cards = round(chance.uniform(*FIRST_SECONDS), 1), []
        while at < seconds:
            cards = cards or chance.sample(pack, len(pack))
            kind = cards.pop()
            faults.append(_fault(chance, at, kind, instances, nodes))
            at = round(at + chance.uniform(*GAP_SECONDS.get(kind, GAP_SECONDS[track])), 1)
    return sorted(faults, key=lambda fault: fault.at)


def _fault(chance: random.Random, at: float, kind: str, instances: int, nodes: int) -> Fault:
    # An older store is that of the only broker; an instance may be held up before.
    is_of_broker = track_of(kind) == "broker" and kind not in SINGLE_KINDS
    victims = nodes if is_of_broker else instances
    target, away, share = chance.randrange(victims), 0.0, 0.0
    if kind in AWAY_SECONDS:
        away = round(chance.uniform(*AWAY_SECONDS[kind]), 1)
    if kind == "client-cut":
        share = round(chance.uniform(*CUT_SHARE), 2)
    fault = Fault(at, kind, target, away, share)
    return _operation(chance, fault) if kind in STREAM_KINDS else fault


def _operation(chance: random.Random, fault: Fault) -> Fault:
    """What of it is drawn for operations on the stream alone."""
    way = chance.choice(WAYS.get(fault.kind, ("",)))
    amount = chance.randint(*AMOUNT.get(fault.kind, (0, 0)))
    age = round(chance.uniform(*AGE_SECONDS.get(fault.kind, (0, 0))), 1)
    is_held, hold = chance.random() < HOLD_SHARE, round(chance.uniform(*HOLD_SECONDS), 1)
    consumer = "deleted" if chance.random() < DELETED_SHARE[fault.kind] else "paused"
    share = round(chance.uniform(*LEAVE_SHARE), 2)
    # A consumer that is held up gives nothing to anybody.
    if fault.kind == "take":
        is_held, share = False, 0.0
    held = {"hold": hold, "consumer": consumer} if is_held else {}
    return dataclasses.replace(fault, share=share, way=way, amount=amount, age=age, **held)
