"""Draws the augmentation of docs/images/augmentation.png: python -m scripts.augmentation_picture OUTPUT [PHOTO ...]."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.images.read import read_image
from datamodules.images.transforms import Transform, reference_transform, train_transform
from scripts.demo.make_demo_data import draw_image

SIDE, COLUMNS, GAP = 96, 6, 4


def main() -> None:
    """For each picture two rows, with one seed a column: torchvision's steps, and the fused ones."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("photos", nargs="*", help="by default two drawn images")
    options = parser.parse_args()
    images = [read_image(photo) for photo in options.photos]
    images = images or [draw_image(label, SIDE + 16, np.random.default_rng(label)) for label in (7, 45)]
    rows = [_row(image, way) for image in images for way in (reference_transform(SIDE), train_transform(SIDE))]
    Image.fromarray(np.concatenate(rows)).quantize(128).save(options.output)  # a palette takes a fifth of the bytes


def _row(image: Image.Image, way: Transform) -> np.ndarray:
    cells = [
        np.pad(way(image, seed).numpy(), ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for seed in range(COLUMNS)
    ]
    return np.concatenate(cells, 1)


if __name__ == "__main__":
    main()
