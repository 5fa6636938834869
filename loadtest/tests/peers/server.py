"""A server on `websockets`: acknowledges a subscription and sends 20 events, compressed.

Arguments: a certificate and its key, for TLS. Prints its address first.
"""

import asyncio
import json
import ssl
import sys

import websockets
from websockets.asyncio.server import serve


async def handle(connection):
    command = json.loads(await connection.recv())
    answer = {"type": "subscribed", "channels": command["channels"], "rejected": [], "total": 1}
    await connection.send(json.dumps(answer))
    for seq in range(1, 21):
        await connection.send(
            '{"seq":%d,"type":"t","channel":"odin.token.A.trade","ts":1,"pos":%d,"prev":%d,"data":%s}'
            % (seq, 10 * seq, 10 * (seq - 1), json.dumps({"text": "again and again " * 40}))
        )
    await connection.ping()
    await connection.wait_closed()


async def main():
    context = None
    scheme = "ws"
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        scheme = "wss"
    async with serve(handle, "127.0.0.1", 0, ssl=context, compression="deflate") as server:
        port = server.sockets[0].getsockname()[1]
        print(f"{scheme}://127.0.0.1:{port}/ws", flush=True)
        await server.serve_forever()


assert websockets
asyncio.run(main())
