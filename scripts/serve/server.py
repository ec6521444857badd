"""LitServe in one process: the server in the main thread, the network in another.

LitServe 0.2 starts a process for the server, one for the network and one for their queues. A Ctrl-C reaches all of them
at once, and a SIGTERM from systemd or ``timeout`` too, so that the network is gone while requests wait for it. In one
process every request that has arrived is answered, the weights are in memory once, and any host and port will do.
"""

import asyncio
import base64
import hashlib
import logging
import queue
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import resources
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import Depends, HTTPException
from litserve import LitServer
from litserve.loops import inference_worker
from litserve.loops.base import _SENTINEL_VALUE as SENTINEL
from litserve.server import RegularRequestHandler
from litserve.transport.base import MessageTransport
from litserve.utils import WorkerSetupStatus
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from datamodules.files.version import version
from lightning_modules.exports.runtime import Runtime
from scripts.serve.admission import Admission
from scripts.serve.classifier_api import ClassifierAPI, json_response
from scripts.serve.limits import Limits

Endpoint = Callable[[Request], Awaitable[Response]]
HEAD_SECONDS = 10  # that a connection may take for the head of a request, at least; at most twice that


class ThreadTransport(MessageTransport):
    """Carries answers from the network's thread to the server's event loop."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    def send(self, item: Any, consumer_id: int) -> None:
        assert self._loop is not None  # a request came from there
        with suppress(RuntimeError):  # it has ended, as a second Ctrl-C makes it
            self._loop.call_soon_threadsafe(self._answers.put_nowait, item)

    @override
    async def areceive(self, consumer_id: int, timeout: float | None = None, block: bool = True) -> Any:
        self._loop = asyncio.get_running_loop()
        return await self._answers.get()

    @override
    def close(self, send_sentinel: bool = True) -> None:
        pass


def make_server(runtime: Runtime, limits: Limits) -> LitServer:
    """Returns LitServe's application, with what its ``run`` adds for several processes added for one."""
    api = ClassifierAPI(runtime, limits)
    server = LitServer(
        api,
        accelerator="cpu",  # the runtime knows its own device
        timeout=False,  # the queue is short
        disable_openapi_url=True,  # its page loads scripts from elsewhere
        middlewares=[(Admission, {"path": api.api_path, "limits": limits})],
    )
    server.app.response_queue_id = 0
    server.mcp_server = SimpleNamespace(lifespan=nullcontext)
    server.workers_setup_status = {"predict_0": WorkerSetupStatus.STARTING}
    server.litapi_request_queues[api.api_path] = queue.Queue()
    server._transport = ThreadTransport()
    handler = FormHandler(api, server)

    async def predict(request: Request) -> Response:
        return await handler.handle_request(request, Request)

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes from damaged forms
    _replace_route(server, "/", _page_endpoint())
    _replace_route(server, "/info", _info_endpoint(runtime, limits))
    _replace_route(server, api.api_path, predict, "POST")
    return server


def _replace_route(server: LitServer, path: str, endpoint: Endpoint, method: str = "GET") -> None:
    """Replaces a route of LitServe, keeping its way to ask for a key."""
    routes = server.app.router.routes
    routes[:] = [route for route in routes if getattr(route, "path", "") != path]
    server.app.add_api_route(path, endpoint, methods=[method], dependencies=[Depends(server.setup_auth())])


class FormHandler(RegularRequestHandler):
    """LitServe's handler, which takes a form that cannot be read for a fault of the server."""

    @override
    async def _prepare_request(self, request: Request, request_type: Any) -> Any:
        try:
            return await super()._prepare_request(request, request_type)
        except HTTPException:  # FastAPI's own type
            raise
        except StarletteHTTPException as error:
            raise HTTPException(error.status_code, f"the form cannot be read ({error.detail.rstrip('.')})") from error


@contextmanager
def network_thread(server: LitServer) -> Iterator[None]:
    """Answers the requests of ``server`` while the block runs."""
    (api,) = server.litapi_connector
    requests = server.litapi_request_queues[api.api_path]
    status, callbacks = server.workers_setup_status, server._callback_runner
    arguments = (api, "cpu", 0, requests, server._transport, status, callbacks, False)
    thread = threading.Thread(target=inference_worker, args=arguments, name="network", daemon=True)
    thread.start()
    try:
        yield
    finally:
        requests.put(SENTINEL)
        thread.join()


def run_server(server: LitServer, listener: socket.socket) -> None:
    """Serves on a listening socket until SIGINT or SIGTERM, then answers what has arrived.

    Raises:
        KeyboardInterrupt: After SIGINT; after SIGTERM, what its handler from before raises.
    """
    engine = uvicorn.Server(
        uvicorn.Config(
            server.app,
            loop="asyncio",
            http="h11",  # which limits the head of a request; httptools does not
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=30,
            timeout_notify=HEAD_SECONDS,
        )
    )
    engine.config.callback_notify = IdleConnections(engine)
    with network_thread(server):
        engine.run([listener])


class IdleConnections:
    """Closes connections that have not begun a request since the last call, which uvicorn would keep for ever."""

    def __init__(self, engine: uvicorn.Server) -> None:
        self._connections: set[Any] = engine.server_state.connections
        self._before: dict[Any, Any] = {}  # the last request of each connection that waited for one

    async def __call__(self) -> None:
        """Is called by uvicorn every ``timeout_notify`` seconds."""
        waiting = {c: c.cycle for c in self._connections if c.cycle is None or c.cycle.response_complete}
        for connection, cycle in waiting.items():
            if connection in self._before and self._before[connection] is cycle:
                connection.transport.close()
        self._before = waiting


def _page_endpoint() -> Endpoint:
    page = resources.files("scripts.serve").joinpath("page.html").read_text("utf-8")
    allowed = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in re.findall(r"<(style|script)>(.*?)</\1>", page, re.S)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed['script']}'; style-src 'sha256-{allowed['style']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"
    }  # fmt: skip

    async def show(request: Request) -> Response:
        return Response(page, headers=headers, media_type="text/html")

    return show


def _info_endpoint(runtime: Runtime, limits: Limits) -> Endpoint:
    model = {name: runtime.header.get(name) for name in ("classes", "image_size", "architecture", "metrics")}
    facts = {"version": version(), "runtime": runtime.description, "limits": vars(limits)}
    content = {"model": model, "server": facts}

    async def tell(request: Request) -> Response:
        return json_response(content)

    return tell
