"""HAProxy before the instances, in TCP mode."""

import csv
import io
import pathlib

from .processes import Addresses, Process, exchange

# New connections go to instances that are ready. If none is, because the brokers are away, to one
# that at least has read the stream before: it tells its clients `source_stale`, and resumes them.
# A server that is marked down keeps its connections (no `on-marked-down shutdown-sessions`): an
# instance that has lost its broker is not ready, but serves who is there; one that has died has
# closed them. `redispatch 1`: a connection that an instance refuses goes to another one at once;
# otherwise HAProxy tries the same one three times, a second apart. The server speaks HTTP/1.1, which has to be said: the default of a check is 1.0.
CONFIG = """
global
    stats socket ipv4@{control} level admin
    stats timeout 1h
    maxconn {connections}

defaults
    mode tcp
    balance leastconn
    option redispatch 1
    retries 3
    timeout connect 1s
    timeout check 1s
    timeout client 1h
    timeout server 1h
    default-server inter 250ms fall 1 rise 1 observe layer4 error-limit 1 on-error mark-down

frontend clients
    bind {front}
    use_backend stale if {{ nbsrv(ready) lt 1 }}
    default_backend ready

backend ready
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr Host odin-ws
    http-check expect status 200
{servers}
backend stale
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr Host odin-ws
    http-check expect rstring '"source":"(live|stale)"'
{servers}"""


class Balancer:
    """Started once; it is never a victim itself."""

    def __init__(
        self,
        binary: str,
        instances: list[str],
        connections: int,
        addresses: Addresses,
        folder: pathlib.Path,
    ) -> None:
        self.front, self._control = addresses.free(), addresses.free()
        self._count = len(instances)
        servers = "".join(
            f"    server {_name(number)} {address} check\n"
            for number, address in enumerate(instances)
        )
        text = CONFIG.format(
            control=self._control, front=self.front, servers=servers, connections=connections
        )
        config = folder / "haproxy.cfg"
        config.write_text(text, encoding="utf-8")
        command = [binary, "-db", "-f", str(config)]
        self.process = Process("the balancer", command, {}, folder / "haproxy.log")

    async def start(self) -> None:
        await self.process.start()

    async def are_up(self) -> bool:
        """Whether it sends clients to every instance, as far as it knows."""
        table = await exchange(self._control, "show stat\n")
        rows = csv.DictReader(io.StringIO(table.removeprefix("# ")))
        names = {_name(number) for number in range(self._count)}
        return names == {
            row["svname"]
            for row in rows
            if row["pxname"] == "ready" and row["status"] == "UP" and row["svname"] in names
        }

    async def cut(self, instance: int) -> None:
        """Drops all connections of clients to one instance."""
        for backend in ("ready", "stale"):
            command = f"shutdown sessions server {backend}/{_name(instance)}\n"
            await exchange(self._control, command)


def _name(instance: int) -> str:
    return f"instance-{instance}"
