"""What one client received, message by message, and what the server claimed about it.

It takes everything in by the rules for clients of docs/chaos.md, and counts what is wrong at once.
What did not come, and which claims were false, is found when everything is known (verdict.py).
Places are marks (lives.py).
"""

import collections
import dataclasses
from array import array

from .lives import life_of, pos_of
from .segment import Doubt, Segment

# A loss is told by `prev` 0 at once and by `resync` within 5 s of the server's clock.
TOLD_SECONDS = 6.0
# How far apart the positions are that are remembered for that long.
TRAIL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Claim:
    """`recovered:true`: whatever was published in between follows, or has come."""

    after: int
    until: int
    view: int


class Checker:
    """One client of these channels."""

    def __init__(self, channels: set[str]) -> None:
        self.channels = channels
        self.segments: list[Segment] = []
        self.claims: list[Claim] = []
        self.duplicated = 0
        self.repeated = 0
        self.out_of_order = 0
        self.overtaken = 0
        self.foreign = 0
        self.prev_unknown = 0
        # Of each event with a `prev`: its mark, and the `prev`.
        self.told_prev = (array("Q"), array("Q"))
        # The newest mark of all, and on the connection.
        self._newest = 0
        self._reached = 0
        self._doubts: collections.deque[Doubt] = collections.deque()
        # Positions of the last seconds, and since when.
        self._trail: collections.deque[tuple[float, int | None]] = collections.deque()

    def begins(self, mark: int, view: int = 0, now: float = 0.0) -> None:
        """Subscribed without a resume, or not recovered: checked from this position on."""
        self._ends_segment(now)
        self._begins(Segment(mark, view, position=mark, first_position=mark), mark, now)

    def begins_anywhere(self, newest: int, view: int = 0, now: float = 0.0) -> None:
        """With a server that is still reading the stream: what is published from now on, after
        `newest`, has to come, and everything after the first event."""
        self._ends_segment(now)
        self._begins(Segment(newest, view, is_certain=False), 0, now)

    def resynced(self, newest: int, view: int = 0, now: float = 0.0) -> None:
        """The same, after a `resync`."""
        if self.segments:
            self.told()
            self.begins_anywhere(newest, view, now)
            self.segments[-1].resynced_at = now

    def told(self) -> None:
        """`resync` or `recovered:false`: another start follows at once."""
        if self.segments:
            self.segments[-1].is_told = True

    def resumed(self, after: int, until: int, view: int = 0) -> None:
        """`recovered:true` from a position, with the server's newest one in the answer."""
        self.claims.append(Claim(after, until, view))
        self._reached = after

    def reaches(self, mark: int, now: float = 0.0) -> None:
        """A position that the server gave by itself: everything up to it has come."""
        segment = self.segments[-1]
        if not segment.is_certain:
            segment.start = min(segment.start, mark)
        self._moves(segment, mark, now)

    def event(self, channel: str, mark: int, prev: int, now: float = 0.0) -> bool:
        """Whether it came for the first time."""
        if channel not in self.channels:
            self.foreign += 1
            return False
        segment = self.segments[-1]
        if not segment.is_certain:
            segment.start = min(segment.start, mark - 1)
            segment.is_certain = True
        is_new = mark > self._newest or not any(other.has(mark) for other in self.segments)
        self._newest = max(self._newest, mark)
        self._takes(segment, channel, mark, prev, now)
        if prev == 0:
            self.prev_unknown += 1
            return is_new
        self.told_prev[0].append(mark)
        self.told_prev[1].append(prev)
        self._moves(segment, mark, now)
        return is_new

    def last(self) -> int:
        """What it has received, or been told that there is no more before."""
        if not self.segments:
            return 0
        segment = self.segments[-1]
        return max(segment.last(), segment.position or 0)

    def has_all(self, newest_on: dict[str, int]) -> bool:
        """Whether the newest message of each channel, or a later one, has come."""
        newest = max(newest_on.get(channel, 0) for channel in self.channels)
        return bool(self.segments) and newest <= self.last()

    def _takes(self, segment: Segment, channel: str, mark: int, prev: int, now: float) -> None:
        newest = segment.newest_on.get(channel, 0)
        if segment.has(mark):
            # Without a position behind it, a client that resumes is sent it again.
            if segment.covers(mark):
                self.duplicated += 1
            else:
                self.repeated += 1
        elif mark <= segment.start:
            self.duplicated += 1
        elif mark <= self._reached:
            self.out_of_order += 1
            segment.receives(channel, mark)
        elif life_of(mark) > life_of(newest) and pos_of(mark) <= pos_of(newest):
            # Nobody told the client that positions are given out again: it takes this for a
            # repetition. The message is lost.
            pass
        else:
            if mark < newest:
                self.overtaken += 1
            if prev == 0:
                after = newest or segment.start
                self._doubts.append(Doubt(now, channel, after, mark))
            segment.receives(channel, mark)
        self._reached = max(self._reached, mark)

    def _begins(self, segment: Segment, reached: int, now: float) -> None:
        self.segments.append(segment)
        self._reached = reached
        self._doubts.clear()
        self._trail.clear()
        self._trail.append((now, segment.position))

    def _ends_segment(self, now: float) -> None:
        if not self.segments:
            return
        segment = self.segments[-1]
        self._forget(now)
        since, position = self._trail[0]
        is_old = since <= now - TOLD_SECONDS
        segment.position_before = position if is_old else segment.first_position
        segment.doubts = [doubt for doubt in self._doubts if doubt.at >= now - TOLD_SECONDS]

    def _moves(self, segment: Segment, mark: int, now: float) -> None:
        segment.moves_to(mark)
        since = self._trail[-1][0]
        if now - since >= TRAIL_SECONDS:
            self._trail.append((now, segment.position))
            self._forget(now)
        else:
            self._trail[-1] = (since, segment.position)

    def _forget(self, now: float) -> None:
        """Of what is older than a loss may stay untold, only the newest position is of use."""
        while len(self._trail) > 1 and self._trail[1][0] <= now - TOLD_SECONDS:
            self._trail.popleft()
        while self._doubts and self._doubts[0].at < now - TOLD_SECONDS:
            self._doubts.popleft()


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
