"""Runs the application until a signal, answers what has arrived, and ends at once after a second Ctrl-C."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from litserve import LitServer
from typing_extensions import override

from callbacks.guards.interruption import is_ours
from datamodules.workers.process import SIGNALS
from scripts.serve.connections import BACKLOG, IDLE_SECONDS, Connection, close_idle, max_connections
from scripts.serve.server import network_thread


class Engine(uvicorn.Server):
    """uvicorn's server, which would obey only SIGINT and SIGTERM, and only until it has ended itself."""

    hurried = False

    @property
    def first_signal(self) -> int:
        """The signal that ends the server."""
        return self._captured_signals[0]

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)  # signals are captured until the network has ended too

    @contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        """Remembers the signals that arrive while the block runs; does at its end what the first would have done."""
        ours = SIGNALS if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self.handle_exit) for number in ours if is_ours(number)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._captured_signals:
            signal.raise_signal(self.first_signal)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)
        self.hurried |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        hurry = asyncio.create_task(self._give_up_when_hurried())
        await super().shutdown(sockets)
        hurry.cancel()

    async def _give_up_when_hurried(self) -> None:
        """Cancels what runs, which ``Admission`` answers with 503: uvicorn's own way leaves a traceback of each."""
        while not self.hurried:
            await asyncio.sleep(0.1)
        for task in self.server_state.tasks:
            task.cancel()


def run_server(server: LitServer, listener: socket.socket) -> None:
    """Serves on a listening socket until a signal, then answers what has arrived, for at most 30 seconds.

    Raises:
        KeyboardInterrupt: After SIGINT; after another signal, what its handler from before raises. If requests are
            given up, the process ends here, with the same exit code.
    """
    Connection.most = max_connections()
    engine = Engine(
        uvicorn.Config(
            server.app,
            loop="asyncio",
            http=Connection,  # of h11, which limits the head of a request; httptools does not
            ws="none",
            log_level="error",  # a warning for each request that is no HTTP would fill a disk
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=30,
            timeout_notify=int(IDLE_SECONDS),
        )
    )

    async def sweep() -> None:
        close_idle(engine.server_state.connections, asyncio.get_running_loop().time())

    engine.config.callback_notify = sweep
    with engine.capture_signals(), network_thread(server):
        engine.run([listener])
        if server.response_buffer:  # requests were given up, but nothing stops the batch that they are in
            sys.stdout.flush()
            os._exit(128 + engine.first_signal)  # Python's own end would wait for it, or crash with it
