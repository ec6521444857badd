import asyncio

import pytest
from starlette.responses import Response

from scripts.serve.local_names import LocalNames
from tests.scripts.serve.asgi import ask


@pytest.mark.parametrize(
    ("host", "name", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "LocalHost", 200),
        ("127.0.0.2", "127.0.0.2:1", 200),
        ("::1", "[::1]:8000", 200),
        ("127.0.0.1", "evil.example:8000", 421),
        ("127.0.0.1", "localhost.evil.example", 421),
        ("127.0.0.1", "127.0.0.1:8000:evil.example", 421),
        ("127.0.0.1", "", 421),
    ],
)
def test_a_local_server_answers_to_its_own_names(host, name, status):
    answer = asyncio.run(ask(LocalNames(Response("ok"), host), "/info", method="GET", host=name))
    assert answer.status == status
    if status == 421:
        assert "ask for localhost" in answer.json["detail"]
