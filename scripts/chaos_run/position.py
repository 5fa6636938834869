"""A client's place in the stream, as docs/protocol.md says that a client keeps it."""


class Position:
    """`epoch`, `pos` and `ts`; unknown before the first subscription and after a `resync`."""

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.pos: int | None = None
        self.ts = 0

    def resume(self) -> dict | None:
        """What `subscribe` is to carry as `resume`."""
        if self.epoch is None or self.pos is None:
            return None
        return {"epoch": self.epoch, "pos": self.pos, "ts": self.ts}

    def subscribed(self, answer: dict) -> None:
        """While missed events are on their way, the position stays where it was."""
        recovered = answer.get("recovered") is True
        self.epoch = answer["epoch"]
        if not (recovered and answer["resume"]["messages"] > 0):
            self._moved(answer)

    def event(self, event: dict) -> None:
        self._moved(event)

    def reached(self, position: dict) -> None:
        """Everything up to there has come, as the answer to a heartbeat says."""
        if position["epoch"] == self.epoch and (self.pos is None or position["pos"] > self.pos):
            self._moved(position)

    def resynced(self, message: dict) -> None:
        """Known again with the next event."""
        self.epoch, self.pos = message["epoch"], None

    def source_live(self, message: dict) -> None:
        """Of use to who subscribed before the server had reached its source."""
        if self.epoch is None:
            self.epoch = message["epoch"]
            self._moved(message)

    def _moved(self, message: dict) -> None:
        self.pos, self.ts = message["pos"], message["ts"]
