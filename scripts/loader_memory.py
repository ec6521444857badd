"""Measures whether loading more epochs takes more memory: python -m scripts.loader_memory (Linux)."""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from PIL import Image

from datamodules import ImageFolderDataModule

CLASSES = 100


def main() -> None:
    """Writes tiny images, loads them for some epochs and prints the resident memory of all processes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder), options.images // CLASSES)
        data = ImageFolderDataModule(folder, image_size=8, batch_size=64, num_workers=options.workers)
        data.setup("fit")
        loader = data.train_dataloader()
        for epoch in range(options.epochs):
            start = time.monotonic()
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            images = sum(len(batch.samples) for batch in loader)
            rss, pss = _resident("Rss"), _resident("Pss")
            print(
                f"epoch {epoch + 1}: {images:,} images in {time.monotonic() - start:.0f} s, the main process and "
                f"{options.workers} workers hold {pss:.1f} MiB, {rss:.1f} MiB with shared pages counted for each",
                flush=True,
            )


def _write_images(root: Path, per_class: int) -> None:
    for label in range(CLASSES):
        for split, count in (("train", per_class), ("val", 1)):
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (label, 0, 0)).save(folder / "0.png")
            content = (folder / "0.png").read_bytes()
            for number in range(1, count):
                (folder / f"photograph_{number:07d}.png").write_bytes(content)


def _resident(field: str) -> float:
    """MiB of this process and its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in ("self", *children):
        total += int(re.search(rf"^{field}:\s*(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M)[1])  # type: ignore[index]
    return total / 1024


if __name__ == "__main__":
    main()
