"""From the form of a request to its answer, in LitServe's terms: decode, predict, encode."""

import json
import logging
import queue
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from fastapi import HTTPException
from litserve import LitAPI
from litserve.loops.base import _SENTINEL_VALUE as SENTINEL
from litserve.loops.base import _StopLoopError as StopLoop
from litserve.loops.simple_loops import BatchedLoop
from litserve.transport.base import MessageTransport
from PIL import UnidentifiedImageError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from datamodules.images.read import ImageReadError, read_image
from datamodules.images.transforms import eval_transform, side_to_load
from lightning_modules.exports.runtime import Runtime
from scripts.serve.admission import SOON
from scripts.serve.limits import TOP_K, Limits

Images = list[np.ndarray]


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns an answer in ASCII: in Starlette's own UTF-8, class names that are not Unicode would be an error."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


class Batches(BatchedLoop):
    """LitServe's loop over batches, which sleeps while no request waits; its own asks for one 1,000 times a second.

    A batch is what waits when the one before is done: a request alone is not held up for others.
    """

    @override
    def get_batch_requests(
        self, lit_api: LitAPI, request_queue: queue.Queue, transport: MessageTransport
    ) -> tuple[list, list]:
        requests = [request_queue.get()]
        try:
            while len(requests) < lit_api.max_batch_size:
                requests.append(request_queue.get_nowait())
        except queue.Empty:
            pass
        if SENTINEL in requests:
            raise StopLoop
        return [(consumer, uid, form) for consumer, uid, _, form in requests], []


class ClassifierAPI(LitAPI):
    """Classifies the images in field ``file`` of a form.

    What is wrong with one request is its answer, a ``Response``, from ``decode_request`` on: an exception would be the
    answer to the whole batch.

    Args:
        runtime: The network, with what its file says about it.
        limits: The server's limits.
    """

    def __init__(self, runtime: Runtime, limits: Limits) -> None:
        super().__init__(max_batch_size=limits.max_batch_size, loop=Batches())
        self.runtime = runtime
        self.limits = limits
        self.image_size = int(runtime.header["image_size"])
        self.classes: list[str] = runtime.header["classes"]

    @override
    def decode_request(self, request: Request, **kwargs: Any) -> Images | Response:
        """Reads and transforms the images of a form, one after another, so that one at a time takes memory."""
        form = cast(FormData, request)  # which LitServe hands over in its place
        try:
            return self._images(form.getlist("file"))
        finally:
            for _, value in form.multi_items():
                if isinstance(value, UploadFile):
                    value.file.close()

    def _images(self, files: Sequence[UploadFile | str]) -> Images | Response:
        if not any(isinstance(file, UploadFile) for file in files):
            return json_response({"detail": "the form has no file in a field named file"}, 400)
        if not all(isinstance(file, UploadFile) for file in files):
            return json_response({"detail": "a field named file holds text: each must hold a file"}, 400)
        if len(files) > self.limits.max_batch_size:
            sentence = f"the form has {len(files)} files: send at most {self.limits.max_batch_size} at once"
            return json_response({"detail": sentence}, 400)
        try:
            return [self._image(cast(UploadFile, file)) for file in files]
        except ImageReadError as error:
            if error.machine:
                return json_response({"detail": "memory is short: try again in a second"}, 503, SOON)
            return json_response({"detail": _sentence(error)}, 400)

    def _image(self, upload: UploadFile) -> np.ndarray:
        side = side_to_load(self.image_size)
        image = read_image(upload.filename or "", self.limits.max_pixels, side, content=upload.file)
        return eval_transform(self.image_size)(image, 0).numpy()

    @override
    def predict(self, x: Sequence[Images | Response], **kwargs: Any) -> list[list[np.ndarray] | Response]:
        """Returns the probabilities of each image of each request."""
        images = [image for request in x if isinstance(request, list) for image in request]
        try:
            rows = self._probabilities(images)
            return [[next(rows) for _ in request] if isinstance(request, list) else request for request in x]
        except Exception as error:
            logging.getLogger("litserve").exception("the network failed")
            raise HTTPException(500, "the network failed, which the server's log tells more about") from error

    def _probabilities(self, images: Images) -> Iterator[np.ndarray]:
        for start in range(0, len(images), self.limits.max_batch_size):
            yield from self.runtime.probabilities(np.stack(images[start : start + self.limits.max_batch_size]))

    @override
    def encode_response(self, output: list[np.ndarray] | Response, **kwargs: Any) -> Response:
        """Returns the most probable classes of each image."""
        if isinstance(output, Response):
            return output
        results = [{"predictions": self._most_probable(row)} for row in output]
        return json_response(results[0] if len(results) == 1 else {"results": results})

    def _most_probable(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        best = np.argsort(-probabilities, kind="stable")[:TOP_K]
        return [{"class": self.classes[i], "probability": float(probabilities[i])} for i in best]


def _sentence(error: ImageReadError) -> str:
    """Returns what is wrong with a file, for people who do not know Python's exceptions."""
    name, cause = error.path or "the file", error.__cause__
    reason = error.reason.removeprefix(type(cause).__name__).removeprefix(": ")
    if isinstance(cause, UnidentifiedImageError) or not reason:
        return f"{name} is not a JPEG, PNG, WebP or BMP image, or is damaged: send one of these"
    return f"cannot read {name}: {reason}"
