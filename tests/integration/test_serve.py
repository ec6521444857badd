import asyncio
import csv
import http.client
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from lightning_modules.exports.runtime import open_runtime
from scripts.main import main
from scripts.serve.limits import Limits
from scripts.serve.server import make_server, network_thread
from tests.conftest import SMALL
from tests.integration.chromium import CHROMIUM, Page
from tests.integration.fork_driver import Command, wait_until
from tests.scripts.serve.asgi import BOUNDARY, ask, form


@pytest.fixture
def port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_answers_are_those_of_predict(trained, data_root, run_folder):
    file = trained / "model.safetensors"
    options = [f"--ckpt_path={file}", f"--data.root={data_root}", "--trainer.precision=32-true", "--prediction.top_k=5"]
    main(["predict", *(word for word in SMALL if word.startswith("--trainer")), "--data.num_workers=0", *options])
    with open("prediction_topk.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    images = {path.stem: path for path in (data_root / "test").rglob("*.jpg")}
    server = make_server(open_runtime(file), Limits())

    async def run():
        async with server.lifespan(server.app):
            bodies = [form(("a.jpg", images[row["image_name"]].read_bytes())) for row in rows]
            return await asyncio.gather(*(ask(server.app, body=body) for body in bodies))

    with network_thread(server):
        answers = asyncio.run(run())
    for row, answer in zip(rows, answers, strict=True):
        predictions = answer.json["predictions"]
        probabilities = [float(row[f"probability_{rank}"]) for rank in range(1, 6)]
        assert [prediction["class"] for prediction in predictions] == [row[f"label_{rank}"] for rank in range(1, 6)]
        assert [prediction["probability"] for prediction in predictions] == pytest.approx(probabilities, abs=1e-5)


def test_mistakes(trained, refusal, port_in_use):
    for words, sentence in (
        ([f"--port={port_in_use}", "--ckpt_path=gone.ckpt"], f"port {port_in_use} of 127.0.0.1 is in use"),
        (["--port=0", "--ckpt_path=gone.ckpt"], "there is no file at gone.ckpt"),
        (["--port=65536", "--ckpt_path=gone.ckpt"], "--port must be between 0 and 65535, got 65536"),
        (
            ["--host=192.0.2.1", "--ckpt_path=gone.ckpt"],
            "192.0.2.1, port 8000 (Cannot assign requested address): ",
        ),
        (["--max_queue_size=0", "--ckpt_path=gone.ckpt"], "--max_queue_size must be greater than 0, got 0"),
        ([], "--ckpt_path"),
    ):
        assert sentence in refusal("serve", *words)


def test_a_missing_package_is_named(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "litserve", None)
    assert "pip install 'cbam100[serve]'" in refusal("serve", "--ckpt_path=gone.ckpt")


@pytest.fixture
def started(trained):
    """A server in a process of its own, and its port."""
    command = Command({"args": ["serve", f"--ckpt_path={trained / 'model.safetensors'}", "--port=0"]})
    output = Path(command.files[0].name)

    def port():
        assert command.process.is_alive(), command.finish()
        return re.search(r"http://127\.0\.0\.1:(\d+) ", output.read_text())

    wait_until(port)
    yield command, int(port()[1])
    command.process.kill()


@pytest.mark.processes
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_server_once_what_had_begun_is_answered(started, number, code, data_root):
    command, port = started
    body = form(("a.jpg", next((data_root / "test").rglob("*.jpg")).read_bytes()))
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # the body is being waited for
        os.killpg(command.process.pid, number)
        wait_until(lambda: not accepts(port))
        connection.sendall(body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        assert answer.read().startswith(b'{"predictions": [{"class": ')
    outcome = command.finish()
    assert outcome["code"] == code
    assert outcome["error"] == ""


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine: the page is not looked at in a browser")
def test_the_page_in_a_browser(started, data_root, tmp_path):
    _, port = started
    names = {path.name for path in (data_root / "train").iterdir()}
    image, bad = next((data_root / "test").rglob("*.jpg")), tmp_path / "<b>bad.gif"
    bad.write_bytes(b"GIF89a")
    drop = "{const t = new DataTransfer(); t.items.add(new File(['x'], 'dropped.png', {type: 'image/png'}));" \
           " dispatchEvent(new DragEvent('drop', {dataTransfer: t, cancelable: true}))}"  # fmt: skip

    def shown():
        rows = page.run("[...document.querySelectorAll('#bars li')].map(row => row.firstChild.textContent)")
        return rows, page.run("at('file').files[0].name"), page.run("at('image').hidden")

    with Page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
        wait_until(lambda: page.run("document.getElementById('count')?.textContent") == "12 classes")
        assert set(page.run("[...document.querySelectorAll('#classes li')].map(item => item.textContent)")) == names
        for _ in range(2):
            page.choose("#file", image)
            wait_until(lambda: len(shown()[0]) == 5)
            rows, name, hidden = shown()
            assert set(rows) < names
            assert (name, hidden) == (image.name, False)
            page.run(drop)
            wait_until(lambda: "dropped.png is not a JPEG" in page.run("at('status').textContent"))
            wait_until(lambda: shown() == ([], "dropped.png", True))  # the broken picture is hidden
        page.choose("#file", bad)
        wait_until(lambda: page.run("at('status').textContent").startswith("<b>bad.gif is not a JPEG"))
        assert page.run("document.querySelector('b')") is None
        odd = "<img src=x onerror=alert(1)>"
        answer = {"predictions": [{"class": odd, "probability": 1}]}
        page.run(f"fetch = async () => new Response({json.dumps(json.dumps(answer))}); 0")
        page.choose("#file", image)
        wait_until(lambda: shown()[0] == [odd])
        assert page.run("document.images.length") == 1
