"""Refuses a request before it costs anything: by its head, while its body arrives, and when too many wait.

Of these, LitServe limits only the size of a body.
"""

import asyncio
from typing import NoReturn

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scripts.serve.limits import Limits

SOON = {"Retry-After": "1"}  # seconds


class Admission:
    """ASGI middleware that keeps ``limits`` on the requests to ``path``.

    A request takes a place in the queue once its body has arrived completely: slow senders keep nobody waiting.

    Args:
        app: The application.
        path: Path of the requests that are limited; others have no body.
        limits: The limits.
    """

    def __init__(self, app: ASGIApp, path: str, limits: Limits) -> None:
        self.app = app
        self.path = path
        self.limits = limits
        self.waiting = 0  # requests
        self.held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a refused request itself, and passes on every other."""
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        upload = Upload(self, receive)
        try:
            self._check_head(Headers(scope=scope))
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            await response(scope, receive, send)
            return
        try:
            await self.app(scope, upload.receive, send)
        except asyncio.CancelledError:  # the server ends without waiting
            response = JSONResponse({"detail": "the server is being stopped: try again later"}, 503, SOON)
            await response(scope, receive, send)
        finally:
            self.held -= upload.size
            self.waiting -= upload.complete

    def _check_head(self, headers: Headers) -> None:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise HTTPException(415, "send the image as multipart/form-data, in a field named file")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.max_payload_size:
            self.refuse_size()
        self.require_place()

    def require_place(self) -> None:
        """Raises ``HTTPException`` 503 if the queue is full."""
        if self.waiting >= self.limits.max_queue_size:
            requests = "1 request is" if self.waiting == 1 else f"{self.waiting} requests are"
            raise HTTPException(503, f"{requests} waiting already: try again in a second", SOON)

    def refuse_size(self) -> NoReturn:
        """Raises ``HTTPException`` 413."""
        raise HTTPException(413, f"the request is larger than {self.limits.max_payload_size:,} bytes: send less")


class Upload:
    """The body of a request on its way in.

    Attributes:
        size: Bytes that have arrived.
        complete: Whether all have.
    """

    def __init__(self, admission: Admission, receive: Receive) -> None:
        self.size = 0
        self.complete = False
        self._admission = admission
        self._receive = receive
        self._end = asyncio.get_running_loop().time() + admission.limits.upload_seconds

    async def receive(self) -> Message:
        """Returns the next part of the body.

        Raises:
            HTTPException: The body is too large or too slow, the sender has left, or there is no room for it.
        """
        if self.complete:
            return await self._receive()
        admission, limits = self._admission, self._admission.limits
        try:
            message = await asyncio.wait_for(self._receive(), self._end - asyncio.get_running_loop().time())
        except TimeoutError:
            sentence = f"the upload took more than {limits.upload_seconds:g} seconds: send less, or faster"
            raise HTTPException(408, sentence, {"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the connection was closed before the upload was complete")
        new = len(message.get("body", b""))
        self.size += new
        admission.held += new
        if self.size > limits.max_payload_size:
            admission.refuse_size()
        if admission.held > limits.max_upload_memory:
            raise HTTPException(503, "the memory for uploads is full: try again in a second", SOON)
        if not message.get("more_body", False):
            admission.require_place()
            admission.waiting += 1
            self.complete = True
        return message
