"""``cbam100 serve``: answers HTTP requests with the classes of the images in them."""

import errno
import os
import socket
from pathlib import Path

from datamodules.files.errors import UserError
from datamodules.images.read import MAX_PIXELS
from lightning_modules.exports.packages import require
from lightning_modules.exports.runtime import open_runtime
from scripts.arguments import Arguments
from scripts.serve.limits import Limits


def serve(
    ckpt_path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_payload_size: int = Limits.max_payload_size,
    max_pixels: int = MAX_PIXELS,
    max_queue_size: int = Limits.max_queue_size,
    max_batch_size: int = Limits.max_batch_size,
) -> None:
    """Serves a page and an HTTP interface that classify images, until Ctrl-C or SIGTERM.

    Example:
        >>> serve("model.safetensors", port=8000)  # doctest: +SKIP

    Args:
        ckpt_path: The trained model, a .ckpt, .safetensors, .onnx or .xml file.
        host: Address to listen on; 0.0.0.0 is all of this machine, for everyone who can reach it.
        port: Port to listen on; 0 takes any that is free.
        max_payload_size: Size limit of a request, in bytes.
        max_pixels: Size limit of a decoded image: width times height, in pixels.
        max_queue_size: Number of requests that may wait for their answer.
        max_batch_size: Number of images that enter the network together, and the most that a request may hold.

    Raises:
        UserError: The model cannot be read, the address cannot be used, or the extra ``serve`` is not installed.
        KeyboardInterrupt: After Ctrl-C, when the requests that had arrived are answered.
    """
    limits = Limits(max_payload_size, max_pixels, max_queue_size, max_batch_size)
    os.environ["OTEL_SDK_DISABLED"] = "true"  # or FastAPI would send its telemetry where other variables say
    for package in ("litserve", "python_multipart"):
        require(package, "serve")
    from scripts.serve.engine import run_server
    from scripts.serve.server import make_server

    with _listen(host, port) as listener:
        runtime = open_runtime(Path(ckpt_path))
        server = make_server(runtime, limits, listener.getsockname()[0])
        name = f"[{host}]" if ":" in host else host
        classes = len(runtime.header["classes"])
        print(
            f"cbam100: classifying into {classes:,} classes on http://{name}:{listener.getsockname()[1]} "
            f"({runtime.description}); Ctrl-C ends it",
            flush=True,
        )
        run_server(server, listener)


def main(words: list[str]) -> None:
    """Runs ``cbam100 serve``."""
    parser = Arguments(prog="cbam100 serve")
    parser.add_parameters(serve, spelled={"max_pixels": "--data.max_pixels"}, metavars={"ckpt_path": "FILE"})
    serve(**vars(parser.parse_args(words)))


def _listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket, so that a port in use is told before the model is read."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OverflowError as error:
        raise UserError(f"--port must be between 0 and 65535, got {port}: 8000 is the default") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: end the program that uses it, or pass --port") from error
        reason = str(error.strerror).partition(" (while ")[0]  # Python repeats the address there
        raise UserError(f"cannot listen on {host}, port {port} ({reason}): check --host and --port") from error
