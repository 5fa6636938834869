"""The options of a run."""

import argparse
import random

from .plan import CLUSTER_KINDS, DEFAULT_KINDS, KINDS, SINGLE_KINDS, STREAM_KINDS
from .summary import INTERRUPTION_LIMIT_SECONDS, MEMORY_LIMIT_MB


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", allow_abbrev=False)
    # Given by scripts/chaos itself.
    for name in ("binary", "haproxy", "nats-server", "folder"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=_positive(float), default=2.0, help="how long")
    parser.add_argument("--seed", type=int, help="of the plan; a random one if not given")
    parser.add_argument("--clients", type=_positive(int), default=200)
    parser.add_argument("--rate", type=_positive(float), default=100.0, help="messages per second")
    parser.add_argument("--channels", type=_positive(int), default=40, help="published to")
    parser.add_argument("--subscriptions", type=_positive(int), default=4, help="of each client")
    parser.add_argument("--nodes", type=int, choices=[1, 3], default=3, help="of the brokers")
    parser.add_argument("--instances", type=_positive(int), default=2)
    parser.add_argument(
        "--memory-limit",
        type=_positive(float),
        default=MEMORY_LIMIT_MB,
        metavar="MB",
        help="what an instance may ever have resident",
    )
    kinds = f"{', '.join(DEFAULT_KINDS)}; and, only if given, {', '.join(STREAM_KINDS)}"
    parser.add_argument("--faults", help=f"kinds, separated by commas: {kinds}")
    parser.add_argument("--json", metavar="FILE", help="writes the summary there, too")
    parser.add_argument("--plan", action="store_true", help="prints the plan and does nothing")
    parser.add_argument("--keep", action="store_true", help="keeps the logs of a run that passed")
    parser.add_argument(
        "--no-interruption-limit",
        action="store_true",
        help=f"an interruption of {INTERRUPTION_LIMIT_SECONDS} s or more is no failure",
    )
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    if options.instances < 2:
        parser.error("--instances has to be 2 or more: one is always left")
    _choose_faults(parser, options)
    return options


def _choose_faults(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """A single broker has nobody to lead in its place. Of several, one alone cannot be given an
    older store: that kind is left out."""
    impossible = CLUSTER_KINDS if options.nodes == 1 else ()
    options.left_out = []
    if options.faults is None:
        options.faults = [kind for kind in DEFAULT_KINDS if kind not in impossible]
        return
    options.faults = [kind for kind in options.faults.split(",") if kind]
    if options.nodes != 1:
        options.left_out = [kind for kind in options.faults if kind in SINGLE_KINDS]
        options.faults = [kind for kind in options.faults if kind not in SINGLE_KINDS]
    for kind in options.faults:
        if kind not in KINDS:
            parser.error(f"--faults: {kind!r} is none of {', '.join(KINDS)}")
        if kind in impossible:
            parser.error(f"--faults: {kind} needs --nodes 3")


def _positive(kind):
    def parse_positive(text: str):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse_positive.__name__ = kind.__name__
    return parse_positive
