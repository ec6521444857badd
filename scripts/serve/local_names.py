"""Refuses requests to a local server that were made for another name."""

import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class LocalNames:
    """ASGI middleware against DNS rebinding: a foreign page whose name leads here could read the answers otherwise.

    Args:
        app: The application.
        host: Address that the server listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 421 to another name, and passes on every other request."""
        if scope["type"] == "http":
            name = re.sub(r":\d*$", "", Headers(scope=scope).get("host", "")).lower()
            if name not in self.names:
                sentence = f"this server is only for its own machine: ask for localhost and not for {name or 'no host'}"
                await JSONResponse({"detail": sentence}, 421)(scope, receive, send)
                return
        await self.app(scope, receive, send)
