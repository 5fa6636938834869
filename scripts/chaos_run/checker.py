"""What one client received, held against what was published.

Everything on the client's channels after the position that it subscribed at has to come exactly
once and in order. Where the server admits that it does not know (`recovered:false`, `resync`), a
new segment begins; what is missing before it is an announced loss, anything else a loss.
"""

import bisect
import dataclasses
from array import array

from .truth import Truth


@dataclasses.dataclass
class Segment:
    """What was received from one start on. If the start is not certain, events may come from before
    it."""

    start: int
    is_certain: bool = True
    positions: array = dataclasses.field(default_factory=lambda: array("Q"))
    late: set[int] = dataclasses.field(default_factory=set)
    last_on: dict[str, int] = dataclasses.field(default_factory=dict)

    def last(self) -> int:
        return self.positions[-1] if self.positions else self.start

    def has(self, pos: int) -> bool:
        index = bisect.bisect_left(self.positions, pos)
        is_in_order = index < len(self.positions) and self.positions[index] == pos
        return is_in_order or pos in self.late


@dataclasses.dataclass
class Verdict:
    """Counts of one client; `expected` is the sum of delivered, lost and announced losses."""

    expected: int = 0
    delivered: int = 0
    lost: list[int] = dataclasses.field(default_factory=list)
    announced: int = 0


class Checker:
    """Takes in what a client of these channels receives, message by message."""

    def __init__(self, channels: set[str]) -> None:
        self.channels = channels
        self.segments: list[Segment] = []
        self.duplicated = 0
        self.out_of_order = 0
        self.foreign = 0
        self.wrong_prev: list[str] = []
        self.prev_unknown = 0

    def begins(self, pos: int) -> None:
        """Subscribed without a resume, or not recovered: checked from this position on."""
        self.segments.append(Segment(pos))

    def begins_anywhere(self, newest: int) -> None:
        """After a `resync`, or with a server that is still reading the stream: what is published
        from now on, after `newest`, has to come, and everything after the first event."""
        self.segments.append(Segment(newest, is_certain=False))

    def event(self, channel: str, pos: int, prev: int) -> None:
        if channel not in self.channels:
            self.foreign += 1
            return
        segment = self.segments[-1]
        if not segment.is_certain:
            segment.start = min(segment.start, pos - 1)
            segment.is_certain = True
        if pos > segment.last():
            self._check_prev(segment, channel, pos, prev)
            segment.positions.append(pos)
            segment.last_on[channel] = pos
        elif pos <= segment.start or segment.has(pos):
            self.duplicated += 1
        else:
            self.out_of_order += 1
            segment.late.add(pos)

    def last(self) -> int:
        return self.segments[-1].last() if self.segments else 0

    def has_all(self, truth: Truth) -> bool:
        """Whether the newest message of each channel, or a later one, has come."""
        newest = max(truth.newest_on.get(channel, 0) for channel in self.channels)
        return bool(self.segments) and newest <= self.last()

    def verdict(self, truth: Truth) -> Verdict:
        verdict = Verdict()
        published = sorted(
            pos for channel in self.channels for pos in truth.by_channel.get(channel, [])
        )
        for index, segment in enumerate(self.segments):
            is_last = index + 1 == len(self.segments)
            end = truth.newest if is_last else self.segments[index + 1].start
            first = bisect.bisect_right(published, segment.start)
            for pos in published[first : bisect.bisect_right(published, end)]:
                verdict.expected += 1
                if segment.has(pos):
                    verdict.delivered += 1
                elif is_last or pos < segment.last():
                    verdict.lost.append(pos)
                else:
                    verdict.announced += 1
        return verdict

    def _check_prev(self, segment: Segment, channel: str, pos: int, prev: int) -> None:
        """0 says that the instance knows none; else it is the channel's last one received, or one
        from before the start."""
        last = segment.last_on.get(channel)
        if prev == 0:
            self.prev_unknown += 1
        elif (prev != last) if last is not None else (segment.start < prev):
            self.wrong_prev.append(f"{channel} at {pos}: prev {prev}, received {last}")


class Replayed:
    """The events that a resume announced: those up to the acknowledgement's position."""

    def __init__(self, newest: int, announced: int) -> None:
        self._newest = newest
        self._announced = announced
        self._seen = 0

    def goes_on(self, pos: int) -> bool:
        """Takes in an event's position; false with the first live one."""
        if pos > self._newest:
            return False
        self._seen += 1
        return True

    def is_complete(self) -> bool:
        return self._seen == self._announced

    def complaint(self) -> str:
        return f"a resume announced {self._announced} messages, {self._seen} came"
