"""Requests to an ASGI application without a server, part by part."""

import asyncio
import json

BOUNDARY = "frontier"


def form(*files, field="file", end=True):
    """The body of a form with files, each of them ``(name, content)``."""
    body = b""
    for name, content in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode() if end else body


class Answer:
    """Status, headers and body of an answer."""

    status, body = None, b""

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message["body"]

    @property
    def json(self):
        return json.loads(self.body)


async def ask(
    app,
    path="/predict",
    body=(),
    method="POST",
    kind=f"multipart/form-data; boundary={BOUNDARY}",
    length=None,
    host="localhost",
):
    """Sends a request whose body is one or more parts; ``None`` among them is one that never comes."""
    parts = [body] if isinstance(body, bytes) else list(body)
    headers = [(b"content-type", kind.encode()), (b"host", host.encode())]
    headers += [(b"content-length", str(length).encode())] if length else []
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
        "query_string": b"", "headers": headers, "http_version": "1.1", "server": ("test", 80), "client": ("test", 1),
    }  # fmt: skip

    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        if part is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    answer = Answer()
    await app(scope, receive, answer.send)
    return answer
