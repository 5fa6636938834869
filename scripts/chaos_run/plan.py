"""The plan of faults: what is done when and to whom, derived from the seed alone."""

import dataclasses
import random

# Faults of one track follow each other, each after the one before has been recovered from; the
# tracks run side by side.
TRACKS = {
    "instance": ("instance-kill", "instance-term"),
    "broker": ("broker-kill", "broker-pause", "broker-step-down"),
    "client": ("client-cut", "balancer-cut"),
}
KINDS = tuple(kind for kinds in TRACKS.values() for kind in kinds)
# Faults that need a cluster of brokers.
CLUSTER_KINDS = ("broker-step-down",)

# Seconds between the starts of two faults of a track, and before the first one.
GAP_SECONDS = {"instance": (5, 9), "broker": (5, 9), "client": (3, 7)}
FIRST_SECONDS = (1, 4)
# Seconds that the victim stays away, by kind: a broker's silence is noticed after 4.5 s.
AWAY_SECONDS = {"instance-kill": (0.2, 3), "broker-kill": (0.5, 4), "broker-pause": (1, 8)}
# The share of clients that a cut hits.
CUT_SHARE = (0.1, 1)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: `at` is in seconds from the begin of the run."""

    at: float
    kind: str
    target: int = 0
    away: float = 0.0
    share: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case "broker-step-down":
                text = "the stream's leader steps down"
            case "client-cut":
                text = f"{self.share:.0%} of the clients drop their connection"
            case "balancer-cut":
                text = f"the balancer drops the connections to instance {self.target}"
            case "instance-term":
                text = f"rolling restart by SIGTERM, instance {self.target} first"
            case "instance-kill":
                text = f"SIGKILL to instance {self.target}, away for {self.away:.1f} s"
            case "broker-kill":
                text = f"SIGKILL to broker {self.target}, away for {self.away:.1f} s"
            case _:
                text = f"SIGSTOP to broker {self.target} for {self.away:.1f} s"
        return f"{self.at:6.1f} s  {self.kind:16}  {text}"


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
            faults.append(_fault(chance, at, cards.pop(), instances, nodes))
            at = round(at + chance.uniform(*GAP_SECONDS[track]), 1)
    return sorted(faults, key=lambda fault: fault.at)


def _fault(chance: random.Random, at: float, kind: str, instances: int, nodes: int) -> Fault:
    victims = nodes if track_of(kind) == "broker" else instances
    target, away, share = chance.randrange(victims), 0.0, 0.0
    if kind in AWAY_SECONDS:
        away = round(chance.uniform(*AWAY_SECONDS[kind]), 1)
    if kind == "client-cut":
        share = round(chance.uniform(*CUT_SHARE), 2)
    return Fault(at, kind, target, away, share)
