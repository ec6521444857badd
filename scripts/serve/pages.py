"""What is answered to a GET: the page for people, and what the model and the server are."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from datamodules.files.version import version
from lightning_modules.exports.runtime import Runtime
from scripts.serve.classifier_api import json_response
from scripts.serve.limits import Limits

Endpoint = Callable[[Request], Awaitable[Response]]


def page_endpoint() -> Endpoint:
    """Returns what shows the page, under a policy that allows only its own script and style."""
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


def info_endpoint(runtime: Runtime, limits: Limits) -> Endpoint:
    """Returns what tells the classes, the model's metrics, and the server's limits."""
    model = {name: runtime.header.get(name) for name in ("classes", "image_size", "architecture", "metrics")}
    facts = {"version": version(), "runtime": runtime.description, "limits": vars(limits)}
    content = {"model": model, "server": facts}

    async def tell(request: Request) -> Response:
        return json_response(content)

    return tell
