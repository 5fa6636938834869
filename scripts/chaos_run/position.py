"""A client's place in the stream, as docs/chaos.md says that a client keeps it."""


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
        """After `recovered:true` the position stays where it was until something moves it. A server
        that has not reached its source yet has none to give."""
        if answer.get("recovered") is True:
            return
        self.epoch, self.pos = answer["epoch"], None
        if self.epoch is not None:
            self._moves_to(answer)

    def event(self, event: dict) -> None:
        """Without `prev` the server does not know whether something is missing before it."""
        if event["prev"] != 0:
            self._moves_up_to(event)

    def reached(self, position: dict) -> bool:
        """Everything up to there has come, as the answer to a heartbeat says; false if that is not
        of the client's epoch."""
        if position["epoch"] != self.epoch:
            return False
        self._moves_up_to(position)
        return True

    def resynced(self, message: dict) -> None:
        """Known again with an event that has `prev`, or with the next heartbeat."""
        self.epoch, self.pos = message["epoch"], None

    def source_live(self, message: dict) -> None:
        """Of use to who subscribed before the server had reached its source."""
        if self.epoch is None:
            self.epoch = message["epoch"]

    def _moves_up_to(self, message: dict) -> None:
        if self.pos is None or message["pos"] > self.pos:
            self._moves_to(message)

    def _moves_to(self, message: dict) -> None:
        self.pos, self.ts = message["pos"], message["ts"]
