"""LitServe in one process: the server in the main thread, the network in another.

LitServe 0.2 starts a process for the server, one for the network and one for their queues. A Ctrl-C reaches all of them
at once, and a SIGTERM from systemd or ``timeout`` too, so that the network is gone while requests wait for it. In one
process every request that has arrived is answered, the weights are in memory once, and any host and port will do.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

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

from lightning_modules.exports.runtime import Runtime
from scripts.serve.admission import Admission
from scripts.serve.classifier_api import ClassifierAPI
from scripts.serve.limits import Limits
from scripts.serve.local_names import LocalNames
from scripts.serve.pages import Endpoint, info_endpoint, page_endpoint


class ThreadTransport(MessageTransport):
    """Carries answers from the network's thread to the server's event loop."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    def send(self, item: Any, consumer_id: int) -> None:
        assert self._loop is not None  # a request came from there
        with suppress(RuntimeError):  # it has ended before the batch, as a second Ctrl-C makes it
            self._loop.call_soon_threadsafe(self._answers.put_nowait, item)

    @override
    async def areceive(self, consumer_id: int, timeout: float | None = None, block: bool = True) -> Any:
        self._loop = asyncio.get_running_loop()
        return await self._answers.get()

    @override
    def close(self, send_sentinel: bool = True) -> None:
        pass


def make_server(runtime: Runtime, limits: Limits, host: str = "0.0.0.0") -> LitServer:
    """Returns LitServe's application, with what its ``run`` adds for several processes added for one.

    Args:
        runtime: The network.
        limits: The server's limits.
        host: Address that it will listen on. Under a loopback address, requests for other names are refused.
    """
    api = ClassifierAPI(runtime, limits)
    local = [(LocalNames, {"host": host})] if ip_address(host).is_loopback else []
    server = LitServer(
        api,
        accelerator="cpu",  # the runtime knows its own device
        timeout=False,  # the queue is short
        disable_openapi_url=True,  # its page loads scripts from elsewhere
        middlewares=[(Admission, {"path": api.api_path, "limits": limits}), *local],
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
    _replace_route(server, "/", page_endpoint())
    _replace_route(server, "/info", info_endpoint(runtime, limits))
    _replace_route(server, api.api_path, predict, "POST")
    for route in server.app.router.routes:
        if "GET" in (methods := getattr(route, "methods", None) or set()):
            methods.add("HEAD")
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
