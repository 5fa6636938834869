"""What was published: the channel, the place in the stream and the time of every message; and what
operations on the stream did to it."""

import bisect
import dataclasses

from .lives import Lives, life_of, pos_of
from .removals import Removals


@dataclasses.dataclass
class Publication:
    """One message; `pos` is known once the broker acknowledged it."""

    channel: str
    sent_at: float
    pos: int | None = None


class Truth:
    """All publications by their number, which is in the payload, too. Places are marks (lives.py)
    if they are not called positions."""

    def __init__(self) -> None:
        self.lives = Lives()
        self.removals = Removals()
        self.publications: list[Publication] = []
        self.by_channel: dict[str, list[int]] = {}
        self.newest = 0
        self.newest_on: dict[str, int] = {}
        self.abandoned: set[int] = set()
        self._number_at: dict[int, int] = {}
        # Messages of the broker or of the server that contradict what was acknowledged.
        self.contradictions: list[str] = []

    def published(self, channel: str, sent_at: float) -> int:
        """Takes in a message that is about to be sent; returns its number."""
        self.publications.append(Publication(channel, sent_at))
        return len(self.publications) - 1

    def acknowledged(self, number: int, pos: int) -> None:
        publication = self.publications[number]
        publication.pos = pos
        channel, mark = publication.channel, self.lives.mark(pos)
        self.newest = max(self.newest, mark)
        self.newest_on[channel] = max(self.newest_on.get(channel, 0), mark)
        self.by_channel.setdefault(channel, []).append(mark)
        self._stands_at(number, mark, "acknowledged")

    def given_up(self, number: int) -> None:
        """The broker never acknowledged it: whether it is in the stream is not known."""
        self.abandoned.add(number)

    def removed(self, kind: str, at: float, positions: set[int]) -> frozenset[int]:
        """An operation took these out of the stream as it is now; returns those that were new."""
        marks = {self.lives.mark(pos) for pos in positions}
        return self.removals.add(kind, at, marks)

    def taken(self, positions: set[int]) -> None:
        """Somebody else was given these by a consumer of an instance."""
        self.removals.taken |= {self.lives.mark(pos) for pos in positions}

    def restored(self, kept: int, at: float, now_ms: float) -> frozenset[int]:
        """An older store was put back, which ends at a position; returns what was lost with it.
        The newest message of each channel is that of the older store."""
        before = self.lives.current()
        self.lives.restored(kept, now_ms)
        lost = {
            mark
            for mark in self._number_at
            if self.lives.is_in(mark, before) and not self.lives.is_in(mark, before + 1)
        }
        lost = self.removals.add("restore", at, lost)
        self.newest = self.lives.mark(kept)
        for channel, marks in self.by_channel.items():
            there = (mark for mark in marks if self.lives.is_in(mark, before + 1))
            self.newest_on[channel] = max(there, default=0)
        return lost

    def observed(self, number: object, mark: int, channel: str) -> float | None:
        """A client received it; returns when it was sent, unless there is no such message."""
        if not isinstance(number, int) or not 0 <= number < len(self.publications):
            self._contradicts(f"a payload at {pos_of(mark)} that was never published: {number!r}")
            return None
        publication = self.publications[number]
        if publication.channel != channel:
            self._contradicts(f"message {number} of {publication.channel} came on {channel}")
        self._stands_at(number, mark, "delivered")
        return publication.sent_at

    def sent_at(self, mark: int) -> float:
        return self.publications[self._number_at[mark]].sent_at

    def channel_of(self, mark: int) -> str:
        return self.publications[self._number_at[mark]].channel

    def published_on(self, channels: set[str]) -> list[int]:
        """What was acknowledged, in the order of the stream."""
        return sorted(mark for channel in channels for mark in self.by_channel.get(channel, []))

    def previous(self) -> dict[int, int]:
        """For each message the position of the one before it on its channel, removed or not, in the
        life in which it was stored; 0 for the first."""
        channels: dict[str, list[int]] = {}
        for mark, number in self._number_at.items():
            channels.setdefault(self.publications[number].channel, []).append(mark)
        previous = {}
        for marks in channels.values():
            before: list[int] = []
            for mark in sorted(marks):
                while before and not self.lives.is_in(before[-1], life_of(mark)):
                    before.pop()
                previous[mark] = pos_of(before[-1]) if before else 0
                before.append(mark)
        return previous

    def acknowledged_count(self) -> int:
        return sum(len(marks) for marks in self.by_channel.values())

    def pending_count(self) -> int:
        return len(self.publications) - self.acknowledged_count() - len(self.abandoned)

    def describe(self, mark: int, begin: float) -> str:
        publication = self.publications[self._number_at[mark]]
        sent_at = publication.sent_at - begin
        sent = f"{publication.channel} at {pos_of(mark)}, sent at {sent_at:.1f} s"
        return sent + self.removals.describe(mark, begin)

    def _stands_at(self, number: int, mark: int, how: str) -> None:
        other = self._number_at.setdefault(mark, number)
        if other != number:
            self._contradicts(f"position {pos_of(mark)} has message {other}, {how} was {number}")

    def _contradicts(self, text: str) -> None:
        self.contradictions.append(text)


def within(marks: list[int], after: int, until: int) -> list[int]:
    """Those of sorted marks that are above `after` and not above `until`."""
    return marks[bisect.bisect_right(marks, after) : bisect.bisect_right(marks, until)]
