"""What a client received from one start to the next: a start is where it subscribed, or where it
went on after it was told of a loss."""

import bisect
import dataclasses
from array import array

from .lives import pos_of


@dataclasses.dataclass(frozen=True)
class Doubt:
    """An event without `prev`: whatever of its channel is between two marks may not have come."""

    at: float
    channel: str
    after: int
    until: int


@dataclasses.dataclass
class Segment:
    """Places are marks. If the start is not certain, events may come from before it."""

    start: int
    # The life of the stream that the client sees from here on.
    view: int = 0
    is_certain: bool = True
    # The client's position, up to which the server has vouched for everything; None after a
    # `resync`, until there is one.
    position: int | None = None
    first_position: int | None = None
    # Of a segment that a `resync` began: when that came.
    resynced_at: float | None = None
    # What came in order, and what came after later ones.
    marks: array = dataclasses.field(default_factory=lambda: array("Q"))
    late: set[int] = dataclasses.field(default_factory=set)
    newest_on: dict[str, int] = dataclasses.field(default_factory=dict)
    # Whether the server's word ended it; else the client subscribed anew, having no position.
    is_told: bool = False
    # As its end found them: the position some time before, and recent doubts.
    position_before: int | None = None
    doubts: list[Doubt] = dataclasses.field(default_factory=list)

    def last(self) -> int:
        return self.marks[-1] if self.marks else self.start

    def has(self, mark: int) -> bool:
        index = bisect.bisect_left(self.marks, mark)
        is_in_order = index < len(self.marks) and self.marks[index] == mark
        return is_in_order or mark in self.late

    def covers(self, mark: int) -> bool:
        """Whether the client's position says that it has it."""
        return mark <= self.start or (self.position is not None and mark <= self.position)

    def receives(self, channel: str, mark: int) -> None:
        if mark > self.last():
            self.marks.append(mark)
        else:
            self.late.add(mark)
        self.newest_on[channel] = max(mark, self.newest_on.get(channel, 0))

    def moves_to(self, mark: int) -> None:
        """As a client does it, which knows no lives: forward by position."""
        if self.position is None or pos_of(mark) > pos_of(self.position):
            self.position = mark

    def is_loaded(self, sent_at: float) -> bool:
        """Whether the client has loaded what was sent then, because of the `resync`."""
        return self.resynced_at is not None and sent_at <= self.resynced_at

    def is_doubted(self, channel: str, mark: int) -> bool:
        return any(
            doubt.channel == channel and doubt.after < mark < doubt.until for doubt in self.doubts
        )
