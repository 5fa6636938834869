"""A client that shares no code with the server: the Python package `websockets`.

Subscribes, checks 50 events, asks for a heartbeat and the list of subscriptions, unsubscribes,
closes, and prints what it saw as JSON.
"""

import asyncio
import json
import sys

import websockets


async def main(url: str) -> dict:
    async with websockets.connect(url, compression=None, max_size=1 << 20) as socket:
        welcome = json.loads(await socket.recv())
        await socket.send(json.dumps({"type": "subscribe", "channels": ["odin.token.*.trade"]}))
        subscribed = json.loads(await socket.recv())
        events = [json.loads(await socket.recv()) for _ in range(50)]
        pong = await socket.ping()
        latency = await pong

        async def answer(command: dict) -> dict:
            await socket.send(json.dumps(command))
            while True:
                message = json.loads(await socket.recv())
                if "seq" not in message:
                    return message

        heartbeat = await answer({"type": "heartbeat", "ts": 7})
        unsubscribed = await answer({"type": "unsubscribe", "channels": ["odin.token.*.trade"]})
        await socket.close(1000, "done")
        return {
            "welcome": welcome["type"],
            "subscribed": subscribed["channels"],
            "seqs": [event["seq"] for event in events],
            "positions": [event["pos"] for event in events],
            "types": sorted({event["type"] for event in events}),
            "ponged": latency >= 0,
            "heartbeat": heartbeat["ts"],
            "total": unsubscribed["total"],
            "close_code": socket.close_code,
        }


print(json.dumps(asyncio.run(main(sys.argv[1]))))
