"""Loads ``cbam100 serve`` with many clients, of whose requests a third are broken, and tells what they got.

``python -m tests.integration.serve_load FILE IMAGES --seconds 60`` starts a server of FILE, sends it images from the
folder IMAGES, and prints JSON: statuses by kind of request, latencies in milliseconds beside those of one request
alone, and the resident memory of the server in MB, at the start and at most.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

BOUNDARY = b"frontier"
MOST_SECONDS = 60  # for an answer
CHUNK = 1_000_000  # bytes


def png_of(side):
    """A PNG that says it is square and ends after 10 MB of pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000_000))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(x)) + tag + x + struct.pack(">I", zlib.crc32(tag + x)) for tag, x in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BOMB, CUT_SHORT = png_of(30_000), png_of(7_900)  # over the limit of pixels, and below it


def form(content, is_whole=True):
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' % BOUNDARY
    return head + content + (b"\r\n--%s--\r\n" % BOUNDARY if is_whole else b"")


def head(length, kind=b"multipart/form-data; boundary=" + BOUNDARY):
    size = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind + b"\r\n" + size + b"\r\n\r\n"


def request(body):
    return [head(len(body)) + body]


def requests_of(image):
    """By kind of request, its parts; a number between two parts is the pause in seconds."""
    body, block = form(image), form(bytes(CHUNK), is_whole=False)
    slowly = [part for i in range(0, len(body), 10) for part in (body[i : i + 10], 1)]
    chunked = b"%x\r\n%s\r\n" % (len(block), block)
    return {
        "good": request(body),
        "truncated image": request(form(image[: len(image) // 2])),
        "truncated form": request(form(image, is_whole=False)),
        "cut connection": [head(len(body)) + body[: len(body) // 2], None],
        "bomb": request(form(BOMB)),
        "large and truncated": request(form(CUT_SHORT)),
        "wrong type": [head(2, b"application/json") + b"{}"],
        "100 MB": [head(100 * CHUNK), *[block] * 100],
        "100 MB without a length": [head(None), *[chunked] * 100],
        "slow body": [head(len(body)), *slowly],
        "slow head": [part for byte in head(10) for part in (bytes([byte]), 1)],
    }


async def answer(reader):
    line = await asyncio.wait_for(reader.readline(), MOST_SECONDS)
    if not line:
        return "closed"
    fields = {}
    while field := (await reader.readline()).strip().lower():
        name, _, value = field.partition(b":")
        fields[name] = value
    await reader.readexactly(int(fields.get(b"content-length", 0)))
    return int(line.split()[1])


async def send(port, parts):
    """The status of the answer, or how the connection ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = asyncio.create_task(answer(reader))
    try:
        for part in parts:
            if answered.done():
                break
            if part is None:
                return "left"
            if isinstance(part, int):
                await asyncio.wait([answered], timeout=part)
                continue
            writer.write(part)
            await writer.drain()
        return await answered
    except TimeoutError:
        return f"no answer in {MOST_SECONDS} seconds"
    except (OSError, asyncio.IncompleteReadError) as error:
        return "closed" if isinstance(error, ConnectionError) else type(error).__name__
    finally:
        answered.cancel()
        writer.close()


async def load(port, pid, images, seconds, clients):
    """Sends requests from ``clients`` at once for some seconds."""
    process, statuses, latencies, memory = psutil.Process(pid), {}, {"alone": [], "loaded": []}, []

    async def one(kind, parts, among=None):
        begun = time.monotonic()
        status = await send(port, parts)
        statuses.setdefault(kind, Counter())[status] += 1
        if among and status == 200:
            latencies[among].append(1000 * (time.monotonic() - begun))

    for image in images[:30]:
        await one("good", request(form(image)), "alone")
    end = time.monotonic() + seconds

    async def client(number):
        rng = random.Random(number)
        while time.monotonic() < end:
            kinds = requests_of(rng.choice(images))
            kind = "good" if rng.random() > 1 / 3 else rng.choice([*kinds][1:])
            await one(kind, kinds[kind], "loaded" if kind == "good" else None)

    async def watch():
        while time.monotonic() < end:
            memory.append(process.memory_info().rss // 10**6)
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *map(client, range(clients)))
    spread = {name: [round(sorted(x)[int(q * len(x))]) for q in (0.5, 0.95)] for name, x in latencies.items()}
    return {"p50 and p95, ms": spread, "statuses": statuses, "memory, MB": [memory[0], max(memory)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "scripts.main", "serve", f"--ckpt_path={options.file}", f"--port={port}"]
    server = subprocess.Popen(command)
    try:
        while server.poll() is None:
            with suppress(urllib.error.URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.2)
        images = [path.read_bytes() for path in sorted(options.images.rglob("*.jpg"))]
        found = asyncio.run(load(port, server.pid, images, options.seconds, options.clients))
    finally:
        server.terminate()
        code = server.wait()
    print(json.dumps({**found, "exit code": code}, indent=2))


if __name__ == "__main__":
    main()
