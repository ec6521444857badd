"""Keeps connections without a request from taking the file handles of those with one; uvicorn keeps them for ever."""

import asyncio
from collections.abc import Iterable
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_SECONDS = 10.0  # that a connection may take for the head of a request, at least; at most twice that
BACKLOG = 64  # connections that the event loop accepts before it looks at any of them


def max_connections() -> int:
    """Returns how many connections may be open: half of the file handles that the process may have, without others."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return 1000
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1000 if handles == resource.RLIM_INFINITY else max(1, min(1000, (handles - BACKLOG) // 2))


class Connection(H11Protocol):
    """A connection that knows how long it has been idle; the longest idle one makes room for a new one.

    A new connection is closed itself if there are too many and each of the others is being answered.
    """

    idle_since = 0.0  # seconds on the clock of the event loop
    most = 1000  # connections

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        if sum(not connection.transport.is_closing() for connection in self.connections) > self.most:
            min(idle(self.connections), key=lambda connection: connection.idle_since).transport.abort()

    @override
    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()


def idle(connections: Iterable[Any]) -> list[Any]:
    """Returns the connections from which no complete head has come since they were opened, or since the last answer."""
    waiting = (c for c in connections if c.cycle is None or c.cycle.response_complete)
    return [connection for connection in waiting if not connection.transport.is_closing()]


def close_idle(connections: Iterable[Any], now: float) -> None:
    """Closes the connections that have been idle for ``IDLE_SECONDS``."""
    for connection in idle(connections):
        if now - connection.idle_since >= IDLE_SECONDS:
            connection.transport.abort()
