"""What was published: the channel, the stream sequence and the time of every message."""

import dataclasses


@dataclasses.dataclass
class Publication:
    """One message; `pos` is known once the broker acknowledged it."""

    channel: str
    sent_at: float
    pos: int | None = None


class Truth:
    """All publications by their number, which is in the payload, too."""

    def __init__(self) -> None:
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
        channel = publication.channel
        self.newest = max(self.newest, pos)
        self.newest_on[channel] = max(self.newest_on.get(channel, 0), pos)
        self.by_channel.setdefault(channel, []).append(pos)
        self._stands_at(number, pos, "acknowledged")

    def given_up(self, number: int) -> None:
        """The broker never acknowledged it: whether it is in the stream is not known."""
        self.abandoned.add(number)

    def observed(self, number: object, pos: int, channel: str) -> float | None:
        """A client received it; returns when it was sent, unless there is no such message."""
        if not isinstance(number, int) or not 0 <= number < len(self.publications):
            self._contradicts(f"a payload at {pos} that was never published: {number!r}")
            return None
        publication = self.publications[number]
        if publication.channel != channel:
            self._contradicts(f"message {number} of {publication.channel} came on {channel}")
        self._stands_at(number, pos, "delivered")
        return publication.sent_at

    def acknowledged_count(self) -> int:
        return sum(len(positions) for positions in self.by_channel.values())

    def pending_count(self) -> int:
        return len(self.publications) - self.acknowledged_count() - len(self.abandoned)

    def describe(self, pos: int, begin: float) -> str:
        publication = self.publications[self._number_at[pos]]
        return f"{publication.channel} at {pos}, sent at {publication.sent_at - begin:.1f} s"

    def _stands_at(self, number: int, pos: int, how: str) -> None:
        other = self._number_at.setdefault(pos, number)
        if other != number:
            self._contradicts(f"position {pos} has message {other}, {how} was {number}")

    def _contradicts(self, text: str) -> None:
        self.contradictions.append(text)
