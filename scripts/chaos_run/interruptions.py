"""How long a client was not connected and subscribed."""

import dataclasses

Window = tuple[float, float]


@dataclasses.dataclass
class Interruptions:
    """Times are of one monotonic clock, in seconds. The way to the first subscription is none."""

    windows: list[Window] = dataclasses.field(default_factory=list)
    _since: float | None = None

    def down(self, now: float) -> None:
        if self._since is None:
            self._since = now

    def excused(self, now: float) -> None:
        """What was until now does not count: the client meant to be away."""
        if self._since is not None:
            self._since = now

    def up(self, now: float) -> None:
        if self._since is not None:
            self.windows.append((self._since, now))
            self._since = None

    def longest(self, excused: list[Window]) -> float:
        """The longest one, less the time of it in which nothing could have been reached."""
        return max((_without(window, excused) for window in self.windows), default=0.0)


def _without(window: Window, excused: list[Window]) -> float:
    """The length of a window less what lies in others, which do not overlap each other."""
    begin, end = window
    overlaps = (min(end, last) - max(begin, first) for first, last in excused)
    return end - begin - sum(overlap for overlap in overlaps if overlap > 0)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    if not values:
        return 0.0
    ordered = sorted(values)
    index = -(-len(ordered) * round(share * 1000) // 1000) - 1
    return ordered[max(0, index)]
