import asyncio
import base64
import hashlib
import io
import re
import struct
import tempfile
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from scripts.serve.limits import Limits
from scripts.serve.server import make_server, network_thread
from tests.scripts.serve.asgi import ask, form

ODD = ["<img src=x onerror=alert(1)>", 'a "quoted" name', "two\nlines", "no \udcff UTF-8", "</script>", "six", "seven"]
SIZE = 8


class FakeRuntime:
    """A grey image of level v belongs to class v, and to each class after it with half the probability."""

    description = "a test"

    def __init__(self):
        self.header = {"classes": ODD, "image_size": SIZE}
        self.batches, self.gate, self.entered = [], threading.Event(), threading.Event()
        self.gate.set()

    def probabilities(self, images):
        assert images.shape[1:] == (SIZE, SIZE, 3)
        assert images.dtype == np.uint8
        self.entered.set()
        self.gate.wait()
        self.batches.append(len(images))
        levels = images[:, SIZE // 2, SIZE // 2, 0]
        if levels.max() == 255:
            raise RuntimeError("a fault of the runtime")
        distance = (np.arange(len(ODD)) - levels[:, None]) % len(ODD)
        return (0.5 ** (distance + 1)).astype(np.float32)


def png(level, size=(10, 12)):
    file = io.BytesIO()
    Image.new("L", size, level).save(file, "png")
    return file.getvalue()


def bomb():
    """A PNG of 30,000 x 30,000 pixels, in a few bytes."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def expected(level):
    order = [(level + step) % len(ODD) for step in range(5)]
    return {"predictions": [{"class": ODD[i], "probability": 0.5 ** (n + 1)} for n, i in enumerate(order)]}


def serving(test, **limits):
    """Runs ``test(app, runtime)`` with a server."""
    runtime = FakeRuntime()
    server = make_server(runtime, Limits(**limits))
    runtime.queue = server.litapi_request_queues["/predict"]

    async def run():
        async with server.lifespan(server.app):
            return await test(server.app, runtime)

    with network_thread(server):
        return asyncio.run(run())


def asking(**request):
    async def test(app, runtime):
        return await ask(app, **request)

    return serving(test)


def test_one_file_and_several():
    one = asking(body=form(("a.png", png(3))))
    assert (one.status, one.json) == (200, expected(3))
    several = asking(body=form(*((f"{level}.png", png(level)) for level in (4, 0, 6))))
    assert several.json == {"results": [expected(4), expected(0), expected(6)]}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (form(("a.png", png(1)[:-20])), "cannot read a.png: "),
        (form(("a.png", b"")), "a.png is not a JPEG, PNG, WebP or BMP image, or is damaged: send one of these"),
        (form(("<b>.gif", b"GIF89a")), "<b>.gif is not a JPEG, PNG, WebP or BMP image"),
        (form(("good.png", png(1)), ("bad.png", b"x")), "bad.png is not a JPEG, "),
        (form(("a.png", bomb())), "cannot read a.png: it has more pixels than --data.max_pixels, 64,000,000"),
        (form(("a.png", png(1)), field="image"), "no file in a field named file"),
        (form(), "no file in a field named file"),
        (form(("a.png", png(1))).replace(b'; filename="a.png"', b""), "no file in a field named file"),
        (
            form(("a.png", png(1)), ("b.png", png(1))).replace(b'; filename="b.png"', b""),
            "a field named file holds text: each must hold a file",
        ),
        (form(*[("a.png", png(1))] * 17), "the form has 17 files: send at most 16 at once"),
        (b"no form", "the form cannot be read (Invalid multipart data)"),
    ],
)
def test_what_is_wrong_with_a_form_is_said(body, sentence):
    answer = asking(body=body)
    assert answer.status == 400
    assert sentence in answer.json["detail"]
    assert "Error" not in answer.json["detail"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Starlette leaves its buffer open
def test_a_form_that_ends_early():
    assert asking(body=form(("a.png", png(1)), end=False)[:-9]).status == 400


def test_a_form_without_a_boundary():
    answer = asking(body=b"x", kind="multipart/form-data")
    assert answer.json == {"detail": "the form cannot be read (Missing boundary in multipart)"}


def test_requests_at_the_same_time_share_a_batch_and_not_their_mistakes():
    async def test(app, runtime):
        runtime.gate.clear()
        first = asyncio.create_task(ask(app, body=form(("0.png", png(0)))))
        await asyncio.to_thread(runtime.entered.wait)
        bodies = [form((f"{level}.png", png(level) if level != 3 else b"damaged")) for level in range(1, 6)]
        rest = [asyncio.create_task(ask(app, body=body)) for body in bodies]
        while runtime.queue.qsize() < 5:
            await asyncio.sleep(0.01)
        runtime.gate.set()
        answers = [await task for task in (first, *rest)]
        assert [answer.status for answer in answers] == [200, 200, 200, 400, 200, 200]
        assert [answer.json for answer in answers if answer.status == 200] == [expected(n) for n in (0, 1, 2, 4, 5)]
        assert runtime.batches == [1, 4]

    serving(test)


def test_no_batch_is_larger_than_the_limit():
    async def test(app, runtime):
        runtime.gate.clear()
        bodies = [form(*[("a.png", png(level))] * 3) for level in range(4)]
        tasks = [asyncio.create_task(ask(app, body=body)) for body in bodies]
        await asyncio.to_thread(runtime.entered.wait)
        runtime.gate.set()
        for level, task in enumerate(tasks):
            assert (await task).json == {"results": [expected(level)] * 3}
        assert max(runtime.batches) <= 4
        assert sum(runtime.batches) == 12

    serving(test, max_batch_size=4)


def test_a_fault_is_answered_and_the_next_request_too(capfd):
    async def test(app, runtime):
        fault = await ask(app, body=form(("a.png", png(255))))
        assert fault.status == 500
        assert "a fault of the runtime" not in fault.body.decode()
        assert (await ask(app, body=form(("a.png", png(2))))).json == expected(2)

    serving(test)


def test_no_upload_reaches_a_disk(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a file was made")

    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    assert len(file.getvalue()) > 6e6
    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr(FakeRuntime, "probabilities", lambda self, images: np.full((1, len(ODD)), 1 / 7, np.float32))
    assert asking(body=form(("a.png", file.getvalue()))).status == 200


def test_info_and_health():
    async def test(app, runtime):
        info = await ask(app, "/info", method="GET")
        assert info.json["model"]["classes"] == ODD
        assert info.json["model"]["image_size"] == SIZE
        assert info.json["server"]["runtime"] == "a test"
        assert info.json["server"]["limits"]["max_payload_size"] == 16_000_000
        assert (await ask(app, "/health", method="GET")).body == b"ok"
        for path in ("/docs", "/redoc", "/openapi.json", "/shutdown"):
            assert (await ask(app, path, method="GET")).status == 404
        for path in ("/", "/info", "/health"):
            assert (await ask(app, path, method="HEAD")).status == 200

    serving(test)


def test_the_page_refers_to_nothing_and_allows_only_its_own_script():
    answer = asking(path="/", method="GET")
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        ((text),) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"""https?:|@import|url\(|innerHTML|document\.write|\son\w+=|style=""", page)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]
    assert "prefers-color-scheme: dark" in page
    assert not any(name in page for name in ODD if name != "</script>")
