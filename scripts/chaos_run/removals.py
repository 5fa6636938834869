"""What the operations on the stream took out of it: by which fault, and when."""

import dataclasses

from .lives import pos_of


@dataclasses.dataclass(frozen=True)
class Removal:
    """One operation and the marks of what the stream has not held since."""

    kind: str
    at: float
    marks: frozenset[int]


class Removals:
    """All of a run, in the order of their time."""

    def __init__(self) -> None:
        self.all: list[Removal] = []
        # Messages that somebody else took from a consumer: the stream still holds them.
        self.taken: set[int] = set()
        self._by_mark: dict[int, Removal] = {}

    def add(self, kind: str, at: float, marks: set[int]) -> frozenset[int]:
        """Returns those that no earlier operation had removed."""
        new = frozenset(mark for mark in marks if mark not in self._by_mark)
        removal = Removal(kind, at, new)
        self.all.append(removal)
        self._by_mark |= dict.fromkeys(new, removal)
        return new

    def has(self, mark: int) -> bool:
        return mark in self._by_mark

    def count(self) -> int:
        return len(self._by_mark)

    def describe(self, mark: int, begin: float) -> str:
        """What became of a message, as the end of a sentence about it; nothing if it was kept."""
        removal = self._by_mark.get(mark)
        if removal is not None:
            return f", removed by {removal.kind} at {removal.at - begin:.1f} s"
        return ", taken from a consumer" if mark in self.taken else ""


def ranges(marks: frozenset[int]) -> str:
    """Positions as people read them: `3-5, 9`."""
    positions = sorted(pos_of(mark) for mark in marks)
    runs: list[list[int]] = []
    for pos in positions:
        if runs and pos == runs[-1][1] + 1:
            runs[-1][1] = pos
        else:
            runs.append([pos, pos])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "none"
