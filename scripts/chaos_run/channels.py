"""The channels of a run, and which of them each client subscribes to."""

import random

KINDS = ("trade", "update", "comment", "price")
# Of so many clients one has a pattern for all channels of a token, and one for all of a kind.
TOKEN_PATTERN_EVERY = 8
KIND_PATTERN_EVERY = 25


def names(count: int) -> list[str]:
    kinds = len(KINDS)
    return [f"odin.token.T{index // kinds}.{KINDS[index % kinds]}" for index in range(count)]


def subscriptions(seed: int, client: int, channels: list[str], count: int) -> list[str]:
    """What one client subscribes to: some channels, and perhaps a pattern that overlaps them."""
    chance = random.Random(f"{seed}/client/{client}")
    chosen = chance.sample(channels, min(count, len(channels)))
    if client % TOKEN_PATTERN_EVERY == 1:
        chosen.append(chance.choice(channels).rpartition(".")[0] + ".*")
    if client % KIND_PATTERN_EVERY == 2:
        chosen.append(f"odin.token.*.{KINDS[0]}")
    return chosen


def covered(subscribed: list[str], channels: list[str]) -> set[str]:
    """The channels that the subscriptions match, each once."""
    return {channel for channel in channels if any(_matches(one, channel) for one in subscribed)}


def _matches(pattern: str, channel: str) -> bool:
    """`*` stands for one token; there are no other wildcards here."""
    ours, theirs = pattern.split("."), channel.split(".")
    return len(ours) == len(theirs) and all(
        token in ("*", other) for token, other in zip(ours, theirs)
    )
