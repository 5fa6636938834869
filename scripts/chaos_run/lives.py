"""Places in the stream that stay apart when the brokers give a position out again.

A store that is put back begins another life of the stream: it keeps the positions up to `kept`, and
those after it are given out once more. A mark is a position with the life that it was given out in,
as one integer: in the first life the two are the same, and marks rise as messages are published.
"""

import bisect

# Positions of a life; what is above them is the life.
POSITION_BITS = 40
POSITION_MASK = (1 << POSITION_BITS) - 1


def pos_of(mark: int) -> int:
    return mark & POSITION_MASK


def life_of(mark: int) -> int:
    return mark >> POSITION_BITS


class Lives:
    """The lives of one stream, the first of which is 0."""

    def __init__(self) -> None:
        self._begun_ms: list[float] = []
        # What the lives 1, 2, … have kept.
        self._kept: list[int] = []

    def current(self) -> int:
        return len(self._kept)

    def restored(self, kept: int, now_ms: float) -> None:
        """Another life begins; nothing is stored at that moment."""
        self._kept.append(kept)
        self._begun_ms.append(now_ms)

    def mark(self, pos: int, ts: float = 0) -> int:
        """The mark of a position by its store time; without one, as the stream is now."""
        life = bisect.bisect_right(self._begun_ms, ts) if ts else self.current()
        while life and pos <= self._kept[life - 1]:
            life -= 1
        return life << POSITION_BITS | pos

    def is_in(self, mark: int, life: int) -> bool:
        """Whether what was stored there before or in that life was not lost up to it."""
        return all(pos_of(mark) <= kept for kept in self._kept[life_of(mark) : life])

    def view_from(self, mark: int) -> int:
        """The life that somebody sees who goes on there now."""
        is_there = self.is_in(mark, self.current())
        return self.current() if is_there else life_of(mark)
