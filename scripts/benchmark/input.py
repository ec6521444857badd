"""``cbam100 benchmark input``: images per second of one core, from files to pixels."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.images.cache import PixelCache, build_cache
from datamodules.images.find import find_images
from datamodules.images.read import MAX_PIXELS, read_image
from datamodules.images.transforms import (
    MEAN,
    STD,
    Transform,
    eval_transform,
    reference_steps,
    side_to_load,
    train_transform,
)
from scripts.benchmark.timing import alternate, row, run_script


def benchmark_input(
    root: Path, image_size: int, *, images: int, rounds: int, baseline: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the table, and the values of the JSON file.

    The baseline is torchvision's pipeline, as in ``--data.augmentation reference``, up to normalised floats; and an
    outside script, whose ``input`` prints ``train_images_per_s_per_core`` and ``eval_images_per_s_per_core``.
    """
    paths = find_images(root / "train").paths[:images]
    size, side = image_size, side_to_load(image_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    plain = {
        "train": v2.Compose([*reference_steps(size), *floats]),
        "eval": v2.Compose([v2.Resize(side), v2.CenterCrop(size), *floats]),
    }
    fast = {"train": train_transform(size), "eval": eval_transform(size)}

    def from_files(transform: Transform) -> None:
        for seed, path in enumerate(paths):
            transform(read_image(path, MAX_PIXELS, side), seed)

    def from_cache(cache: PixelCache, transform: Transform) -> None:
        for position, path in enumerate(paths):
            transform(cache.read(position) or read_image(path), position)

    def plainly(transform: v2.Transform) -> None:
        for path in paths:
            transform(Image.open(path).convert("RGB"))

    with tempfile.TemporaryDirectory() as folder:
        build_cache(Path(folder), "images", paths, partial(read_image, max_pixels=MAX_PIXELS, shorter_side=side))
        cache = PixelCache(Path(folder), "images")
        seconds: dict[str, list[float]] = {}
        outside: dict[str, list[float]] = {"train": [], "eval": []}
        outside_name = baseline.name if baseline else ""
        for first in [True] + [False] * (rounds - 1):
            for kind in ("train", "eval"):
                contenders = {
                    kind: partial(from_files, fast[kind]),
                    f"{kind}, from a cache": partial(from_cache, cache, fast[kind]),
                    f"{kind}, plain": partial(plainly, plain[kind]),
                }
                for name, times in alternate(contenders, 1, warm_up=int(first)).items():
                    seconds.setdefault(name, []).extend(times)
            if baseline:
                words = ["--data", str(root / "train"), "--size", str(size), "--images", str(len(paths))]
                result = run_script(baseline, "input", *words)
                for kind, times in outside.items():
                    times.append(len(paths) / result[f"{kind}_images_per_s_per_core"])
    torch.set_num_threads(threads)
    rows = [row(name, len(paths), times, seconds[f"{name.split(',')[0]}, plain"]) for name, times in seconds.items()]
    for kind, times in outside.items():
        if times:
            rows.append(row(f"{kind}, {outside_name}", len(paths), times, seconds[f"{kind}, plain"]))
    rate = {row["name"]: row["images_per_s"] for row in rows}
    values: dict[str, Any] = {"images": len(paths), "size": size}
    for kind, times in outside.items():
        values[f"{kind}_images_per_s_per_core"] = rate[kind]
        values[f"{kind}_gain_over_plain"] = rate[kind] / rate[f"{kind}, plain"]
        values[f"{kind}_gain_over_plain_from_a_cache"] = rate[f"{kind}, from a cache"] / rate[f"{kind}, plain"]
        if times:
            values[f"{kind}_gain_over_baseline"] = rate[kind] / rate[f"{kind}, {outside_name}"]
    return rows, values
