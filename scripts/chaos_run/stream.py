"""What is asked of the brokers about the stream, by JetStream's own API, and what they are told to
do with it."""

import asyncio
import contextlib
import datetime
import json

import nats
import nats.errors

from .processes import Unrecovered

STREAM = "ODIN_TOKENS"
# Consumers of instances are called like that.
CONSUMER_PREFIX = "odin-ws"
ANSWER_SECONDS = 1.0
PAUSE_SECONDS = 0.2
# A broker may be away meanwhile.
PATIENCE_SECONDS = 25.0
# Messages that were taken come at once, or not at all.
TAKE_SECONDS = 1.0


class Refused(Exception):
    """The brokers answered that they do not do it."""


class Stream:
    """One connection, apart from that of the publisher."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._client: nats.NATS | None = None

    async def connect(self) -> None:
        self._client = await connect(self._urls)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def step_down(self) -> None:
        """Makes the stream's leader step down; done once another node leads."""
        answer = await self._client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}", timeout=5)
        if not json.loads(answer.data).get("success"):
            raise Unrecovered(f"the leader does not step down: {answer.data.decode()}")

    async def last_pos(self) -> int:
        """The newest position of the stream; waits until the stream has a leader."""
        return (await self._ask(f"STREAM.INFO.{STREAM}"))["state"]["last_seq"]

    async def removed(self) -> set[int]:
        """All positions that were given out and whose messages the stream does not hold."""
        state = (await self._ask(f"STREAM.INFO.{STREAM}", {"deleted_details": True}))["state"]
        before_first = range(1, max(state["first_seq"], 1))
        return set(before_first).union(state.get("deleted") or [])

    async def delete(self, pos: int, erase: bool) -> bool:
        """False if there is no such message."""
        try:
            await self._ask(f"STREAM.MSG.DELETE.{STREAM}", {"seq": pos, "no_erase": not erase})
        except Refused:
            return False
        return True

    async def purge(self, how: dict) -> None:
        await self._ask(f"STREAM.PURGE.{STREAM}", how)

    async def settings(self) -> dict:
        return (await self._ask(f"STREAM.INFO.{STREAM}"))["config"]

    async def update(self, settings: dict) -> None:
        await self._ask(f"STREAM.UPDATE.{STREAM}", settings)

    async def consumers(self) -> list[str]:
        """Those that instances of odin-ws have."""
        listed = (await self._ask(f"CONSUMER.LIST.{STREAM}"))["consumers"] or []
        return [
            consumer["name"]
            for consumer in listed
            if consumer["name"].startswith(CONSUMER_PREFIX)
            or consumer["config"].get("description", "").startswith(CONSUMER_PREFIX)
        ]

    async def pause(self, consumer: str, seconds: float) -> None:
        """The consumer gives out nothing for so long; one that is gone gives out nothing either."""
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        with contextlib.suppress(Refused):
            body = {"pause_until": until.isoformat().replace("+00:00", "Z")}
            await self._ask(f"CONSUMER.PAUSE.{STREAM}.{consumer}", body)

    async def drop(self, consumer: str) -> None:
        with contextlib.suppress(Refused):
            await self._ask(f"CONSUMER.DELETE.{STREAM}.{consumer}")

    async def take(self, consumer: str, count: int) -> set[int]:
        """Pulls from somebody's consumer, as `nats consumer next` does; which positions came."""
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        body = {"batch": count, "expires": round(TAKE_SECONDS * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}"
        await self._client.publish(subject, json.dumps(body).encode(), reply=inbox)
        taken = set()
        with contextlib.suppress(nats.errors.TimeoutError):
            while len(taken) < count:
                message = await subscription.next_msg(timeout=TAKE_SECONDS)
                if not message.reply.startswith("$JS.ACK."):
                    break
                taken.add(_stream_pos(message.reply))
        await subscription.unsubscribe()
        return taken

    async def _ask(self, what: str, body: dict | None = None) -> dict:
        """Asks until the brokers answer.

        # Raises
        `Refused` if the answer is an error that another try would not mend.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        while True:
            try:
                request = self._client.request(f"$JS.API.{what}", payload, timeout=ANSWER_SECONDS)
                answer = json.loads((await request).data)
                error = answer.get("error")
                if error is None:
                    return answer
                if error.get("code") != 503:
                    raise Refused(f"{what}: {error}")
                trouble: object = error
            except (nats.errors.Error, OSError) as failure:
                trouble = repr(failure)
            if loop.time() > give_up:
                raise Unrecovered(f"no answer to {what}: {trouble}") from None
            await asyncio.sleep(PAUSE_SECONDS)


def _stream_pos(reply: str) -> int:
    """`$JS.ACK.<stream>.<consumer>.<delivered>.<stream position>.…`, or with a domain and an
    account before the stream."""
    tokens = reply.split(".")
    return int(tokens[5] if len(tokens) == 9 else tokens[7])


async def connect(urls: list[str]) -> nats.NATS:
    """A connection that comes back whatever happens to the brokers."""
    return await nats.connect(
        urls,
        error_cb=_ignore,
        connect_timeout=1,
        reconnect_time_wait=0.1,
        max_reconnect_attempts=-1,
        ping_interval=1,
        max_outstanding_pings=2,
    )


async def _ignore(_: Exception) -> None:
    """Losses of the connection are what this is about."""
