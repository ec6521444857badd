"""``cbam100 benchmark input``: measures how many images per second one core reads and transforms."""

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
from scripts.benchmark.timing import alternate, rows, run_script


def benchmark_input(
    root: Path, image_size: int, *, images: int, rounds: int, baseline: Path | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows of the table and the other figures.

    There are two baselines: "plain" is torchvision's pipeline, as in ``--data.augmentation reference``, down to
    normalised floats; ``baseline`` is an outside script, whose ``input`` prints ``train_images_per_s_per_core`` and
    ``eval_images_per_s_per_core``.
    """
    paths = [image.path for image in find_images(root / "train").images[:images]]
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
        contenders = {
            kind: {
                kind: partial(from_files, fast[kind]),
                f"{kind}, from a cache": partial(from_cache, cache, fast[kind]),
                f"{kind}, plain": partial(plainly, plain[kind]),
            }
            for kind in ("train", "eval")
        }
        outside = {kind: f"{kind}, {baseline.name}" for kind in contenders} if baseline else {}
        seconds: dict[str, list[float]] = {name: [] for works in contenders.values() for name in works}
        seconds |= {name: [] for name in outside.values()}
        for turn in range(rounds):
            for works in contenders.values():
                for name, times in alternate(works, 1, warm_up=0 if turn else 1).items():
                    seconds[name] += times
            if baseline:
                words = ["--data", str(root / "train"), "--size", str(size), "--images", str(len(paths))]
                result = run_script(baseline, "input", *words)
                for kind, name in outside.items():
                    seconds[name].append(len(paths) / result[f"{kind}_images_per_s_per_core"])
    torch.set_num_threads(threads)
    table = rows(len(paths), seconds)
    rate = {row["name"]: row["images_per_s"] for row in table}
    values: dict[str, Any] = {"images": len(paths), "size": size}
    for kind in contenders:
        values[f"{kind}_images_per_s_per_core"] = rate[kind]
        values[f"{kind}_gain_over_plain"] = rate[kind] / rate[f"{kind}, plain"]
        values[f"{kind}_gain_over_plain_from_a_cache"] = rate[f"{kind}, from a cache"] / rate[f"{kind}, plain"]
        if baseline:
            values[f"{kind}_gain_over_baseline"] = rate[kind] / rate[outside[kind]]
    return table, values
