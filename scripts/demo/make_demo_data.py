"""Draws a data set of 100 classes in the project's folder layout, so that demo and tests need no download.

A class is one of 5 silhouettes, in one of 5 hues, on one of 4 backgrounds (5 · 5 · 4 = 100). Position, size, rotation,
brightness, saturation, direction of the light and sensor noise vary, so that a network has to learn what the images of
a class have in common.
"""

import argparse
import colorsys
import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datamodules.workers.pool import map_in_processes

NUM_CLASSES = 100
RECEIPT = "demo_data.json"
SUPERSAMPLING = 2  # silhouettes are drawn this many times larger and then shrunk, for smooth edges

Point = tuple[float, float]


def _around(angles: np.ndarray, radii: np.ndarray) -> list[Point]:
    return [(r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


SILHOUETTES: tuple[list[list[Point]], ...] = (  # polygons
    [_around(2 * np.pi * np.arange(48) / 48, np.full(48, 0.9))],  # disc
    [[(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)]],  # triangle
    [_around(np.pi * np.arange(10) / 5 - np.pi / 2, np.where(np.arange(10) % 2, 0.42, 1.0))],  # star
    [[(-0.9, top), (0.9, top), (0.9, top + 0.4), (-0.9, top + 0.4)] for top in (-0.9, -0.2, 0.5)],  # bars
    [[(-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3), (0.3, 0.95), (-0.3, 0.95),
      (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)]],  # cross
)  # fmt: skip
BACKGROUNDS = ("dark", "light", "stripes", "checks")


def _background(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns grey levels ``(size, size)`` in 0..255."""
    y, x = np.mgrid[0:size, 0:size]
    cell = size * rng.uniform(0.10, 0.14)
    dark, light = rng.uniform(25, 60), rng.uniform(190, 230)
    if kind == "stripes":
        mask = ((x + y + rng.uniform(0, size)) // cell) % 2
    elif kind == "checks":
        offset_x, offset_y = rng.uniform(0, size, 2)
        mask = ((x + offset_x) // cell + (y + offset_y) // cell) % 2
    else:
        mask = np.full((size, size), float(kind == "light"))
    return dark + (light - dark) * mask


def draw_image(label: int, size: int, rng: np.random.Generator) -> Image.Image:
    """Draws one RGB image ``(size, size)`` of class ``label`` (0 to 99)."""
    silhouette, rest = divmod(label, 20)
    hue, background = divmod(rest, 4)
    large = size * SUPERSAMPLING
    grey = _background(BACKGROUNDS[background], large, rng)
    canvas = Image.fromarray(np.repeat(grey[..., None], 3, 2).astype(np.uint8))

    colour = colorsys.hsv_to_rgb((hue + rng.uniform(-0.12, 0.12)) / 5, rng.uniform(0.75, 1.0), rng.uniform(0.75, 1.0))
    centre = large * (0.5 + rng.uniform(-0.08, 0.08, 2))
    angle, scale = np.deg2rad(rng.uniform(-12, 12)), large * rng.uniform(0.32, 0.42)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pen = ImageDraw.Draw(canvas)
    fill = tuple(round(255 * channel) for channel in colour)
    for outline in SILHOUETTES[silhouette]:
        points = np.array(outline) @ rotation.T + centre
        pen.polygon([(float(px), float(py)) for px, py in points], fill=fill)

    pixels = np.asarray(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))).resize((size, size)), np.float64)
    ramp = np.linspace(-1, 1, size)
    light = 1 + rng.uniform(-0.15, 0.15) * ramp[:, None] + rng.uniform(-0.15, 0.15) * ramp[None, :]
    pixels = pixels * light[..., None] + rng.normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_file(image: tuple[Path, int, int, tuple[int, ...]]) -> str:
    folder, label, size, seeds = image
    rng = np.random.default_rng(seeds)
    drawn = draw_image(label, size, rng)
    name = rng.bytes(8).hex()
    drawn.save(folder / f"{name}.jpg", quality=90)
    return name


def make_demo_data(
    root: Path,
    *,
    seed: int = 42,
    size: int = 64,
    num_classes: int = NUM_CLASSES,
    train_images: int = 20,
    val_images: int = 5,
    test_images: int = 3,
    num_processes: int = 0,
) -> None:
    """Writes ``train/``, ``val/``, ``test/`` and ``sample_submission.csv`` to the folder ``root``.

    The same arguments and the same Pillow give the same bytes. ``test/`` is flat and unlabelled, and the submission
    lists its images in random order. A ``root`` that was written with the same arguments is left as it is.

    Args:
        root: Folder to write; created if missing.
        seed: Seed of all random numbers.
        size: Side of each image, in pixels.
        num_classes: Number of classes, at most 100.
        train_images: Number of training images per class.
        val_images: Number of validation images per class.
        test_images: Number of test images per class.
        num_processes: Number of processes that draw; with 0, this process does.

    Raises:
        FileExistsError: ``root``, or the hidden folder beside it in which images are drawn first, holds other files.
    """
    settings: dict[str, Any] = locals().copy()
    del settings["root"], settings["num_processes"]
    root = Path(os.path.realpath(root))
    if (root / RECEIPT).is_file() and (root / RECEIPT).read_text() == json.dumps(settings):
        return
    # Drawn beside root and renamed at the end, so that an interrupted drawing is not mistaken for a data set.
    part = root.with_name(f".{root.name}.part")
    for folder in (root, part):
        interrupted = folder == part and (part / RECEIPT).is_file()
        if os.path.lexists(folder) and not interrupted and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} already holds other files: choose another --output")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / RECEIPT).write_text(json.dumps(settings))
    images = []
    for label in range(num_classes):
        for split_number, (split, count) in enumerate(
            {"train": train_images, "val": val_images, "test": test_images}.items()
        ):
            folder = part / split / ("" if split == "test" else str(label))
            folder.mkdir(parents=True, exist_ok=True)
            images += [(folder, label, size, (seed, split_number, label, number)) for number in range(count)]
    names = list(map_in_processes(_draw_file, images, num_processes))
    test_names = [name for name, (folder, *_) in zip(names, images, strict=True) if folder.name == "test"]
    with open(part / "sample_submission.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_name", "pred_label"])
        writer.writerows([name, 0] for name in np.random.default_rng(seed).permutation(test_names))
    part.replace(root)


def main() -> None:
    """Runs from the command line: ``python -m scripts.demo.make_demo_data --output DIR``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; created if missing")
    parser.add_argument("--seed", type=int, default=42, help="seed of all random numbers")
    parser.add_argument("--size", type=int, default=64, help="side of each image, in pixels")
    arguments = parser.parse_args()
    try:
        make_demo_data(arguments.output, seed=arguments.seed, size=arguments.size)
    except OSError as error:
        print(f"make_demo_data: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(f"demo data: {NUM_CLASSES} classes in {arguments.output}")


if __name__ == "__main__":
    main()
