"""Predicts images with a file of ``cbam100 export --format onnx``; needs onnxruntime, numpy and pillow, not cbam100.

python predict_onnx.py model.onnx FOLDER_OR_IMAGES... > prediction.csv
"""

import base64
import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageChops

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
# How images of EXIF orientations 2 to 8 are turned upright.
UPRIGHT = dict(enumerate(map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), start=2))


def open_model(path: str) -> tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """Returns what the file says about itself, and its function from uint8 RGB images to probabilities."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    header = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    (images,) = session.get_inputs()
    return header, lambda batch: session.run(None, {images.name: batch})[0]


def read_image(file: Path | io.BytesIO, header: dict[str, Any]) -> np.ndarray:
    """Returns uint8 ``(1, size, size, 3)``: upright, opaque, resized as in validation, and cropped at the centre."""
    size, side = header["image_size"], header["resize"]["shorter_side"]
    turn = None
    with Image.open(file, formats=("JPEG", "PNG", "WEBP", "BMP")) as opened:
        opened.draft(None, (side, side))  # far larger JPEGs are decoded at 1/2, 1/4 or 1/8 of their size
        image: Image.Image = opened.copy()
        with contextlib.suppress(Exception):  # damaged EXIF
            turn = UPRIGHT.get(opened.getexif().get(0x0112, 1))
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's conversion to RGB would clip
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    elif image.mode == "CMYK" and opened.format in ("JPEG", "MPO") and "adobe" not in opened.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted
    image = image if turn is None else image.transpose(turn)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image, shorter = image.convert("RGB"), min(image.size)
    resized = [length * side // shorter for length in image.size]
    if shorter > side:
        image = image.resize((resized[0], resized[1]), Image.Resampling.BILINEAR)
    scales = [length / after for length, after in zip(image.size, resized, strict=True)]  # not 1 if it is enlarged
    left, top = (round((after - size) / 2) * scale for after, scale in zip(resized, scales, strict=True))
    right, bottom = ((round((after - size) / 2) + size) * scale for after, scale in zip(resized, scales, strict=True))
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom)))[None]


def image_files(places: list[str]) -> list[Path]:
    """Lists images and those in folders, but for hidden ones, in natural order: 2 before 10."""
    found = [Path(place) for place in places if not Path(place).is_dir()]
    for folder in filter(Path.is_dir, map(Path, places)):
        below = (path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES))
        found += [path for path in below if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Returns a sort key by which numbers in names count as numbers."""
    parts = re.split("([0-9]+)", path.as_posix())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.as_posix()


def cell(name: str) -> str:
    r"""Spells a name so that no spreadsheet calculates it, with ``\xNN`` for bytes that are not UTF-8."""
    name = re.sub(r"\\x(5c|[89a-f][0-9a-f])", r"\\x5cx\1", name)
    name = re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)
    return f"'{name}" if re.match(r"'*[=+\-@\t\r\n＝＋－＠]", name) else name


def csv_line(*cells: str) -> str:
    """Joins cells, all quoted where some spreadsheet would split one."""
    text = io.StringIO()
    must_quote = re.search("[;\t]", "".join(cells))
    csv.writer(text, quoting=csv.QUOTE_ALL if must_quote else csv.QUOTE_MINIMAL).writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def main(model: str, *places: str) -> None:
    """Runs the model's self-test, and prints a table of all images."""
    header, probabilities = open_model(model)
    test = header.get("self_test") or sys.exit(f"{model} is no export of cbam100: it holds no self-test")
    answer = probabilities(read_image(io.BytesIO(base64.b64decode(test["image"])), header))
    if not (off := np.abs(answer - test["probabilities"]).max()) <= test["tolerance"]:
        sys.exit(f"the self-test of {model} fails, probabilities are off by {off:.2g}: prepare images exactly as here")
    paths = image_files([*places])
    if len({path.stem for path in paths}) < len(paths):
        sys.exit("image names must be unique, but several images have the same: predict their folders separately")
    lines = [csv_line("image_name", "pred_label")]
    for path in paths:
        try:
            image = read_image(path, header)
        except Exception as error:  # decoders raise errors of many kinds
            sys.exit(f"cannot read {path} ({error}): replace or remove the file")
        label = header["classes"][probabilities(image)[0].argmax()]
        lines.append(csv_line(cell(path.stem), cell(label)))
    sys.stdout.buffer.write("".join(lines).encode())


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
