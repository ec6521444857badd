"""The recipe from a decoded photo to the pixels of a batch: three ways to train, one for everything else.

All of them map an RGB image and a seed to uint8 ``(image_size, image_size, 3)``. ``normalize`` follows on the device,
for a whole batch: a loader hands over a quarter of the bytes that float32 would take.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datamodules.images import fused_augmentation

# Channel statistics of ImageNet, which torchvision's pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MEAN_PIXEL = tuple(round(255 * value) for value in MEAN)  # is 0, to the nearest level, once it is normalised
CROP_SCALE = (0.8, 1.0)  # of the reference recipe

Transform = Callable[[Image.Image, int], Tensor]


def side_to_load(image_size: int) -> int:
    """Returns ⌊1.14 · image_size⌋, the shorter side in pixels that validation resizes to and images are loaded with."""
    return image_size * 114 // 100


def normalize(images: Tensor) -> Tensor:
    """Maps uint8 ``(batch, 3, height, width)`` to float32 with ImageNet's mean 0 and standard deviation 1."""
    mean, std = _statistics(images.device)
    return (images - mean).div_(std)


def denormalize(images: Tensor) -> Tensor:
    """Undoes ``normalize``, for people to look at."""
    mean, std = _statistics(images.device)
    return (images * std + mean).round().clamp(0, 255).to(torch.uint8)


@functools.cache  # a copy to a GPU waits for it
def _statistics(device: torch.device) -> tuple[Tensor, ...]:
    return tuple(255 * torch.tensor(values).view(1, 3, 1, 1).to(device) for values in (MEAN, STD))


def reference_steps(image_size: int, crop_scale: tuple[float, float] = CROP_SCALE) -> list[v2.Transform]:
    """Returns the reference recipe's augmentation as torchvision's transforms, in its order.

    Args:
        image_size: Side of the result in pixels.
        crop_scale: Smallest and largest share of an image's area that a crop keeps.
    """
    return [
        v2.RandomResizedCrop(image_size, scale=crop_scale),
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
        v2.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1)),
    ]


def reference_transform(
    image_size: int, crop_scale: tuple[float, float] = CROP_SCALE, random_erasing: float = 0.0
) -> Transform:
    """Returns the reference's augmentation as torchvision carries it out, one step after the other.

    Args:
        image_size: Side of the result in pixels.
        crop_scale: As for ``reference_steps``.
        random_erasing: Probability that a rectangle is painted over with ``MEAN_PIXEL``, after everything else.
    """
    return _random_transform(v2.Compose(reference_steps(image_size, crop_scale)), random_erasing)


def train_transform(
    image_size: int, crop_scale: tuple[float, float] = CROP_SCALE, random_erasing: float = 0.0
) -> Transform:
    """Returns the reference's augmentation in fewer passes; a seed means the same as in ``reference_transform``."""
    steps = reference_steps(image_size, crop_scale)
    way = functools.partial(fused_augmentation.augment, steps=steps, size=image_size)
    return _random_transform(way, random_erasing)


def trivial_transform(
    image_size: int, crop_scale: tuple[float, float] = CROP_SCALE, random_erasing: float = 0.0
) -> Transform:
    """Returns crop and flip, and then one change of random kind and strength.

    Source: Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021, arXiv
    2103.10158, in its wide space. Arguments are those of ``reference_transform``.
    """
    crop, flip, *_ = reference_steps(image_size, crop_scale)
    return _random_transform(v2.Compose([crop, flip, v2.TrivialAugmentWide()]), random_erasing)


def eval_transform(image_size: int) -> Transform:
    """Returns the transform of validation, test and prediction: shorter side to ``side_to_load``, centre crop.

    Both happen in one resampling of what the crop will show: a strip of 1 × 5000 pixels would take 1 GB if it were
    resized first.
    """
    return functools.partial(_centre, size=image_size)


def _random_transform(way: Callable[[Image.Image], Image.Image], random_erasing: float) -> Transform:
    erase = v2.RandomErasing(random_erasing, value=MEAN_PIXEL, inplace=True) if random_erasing else None
    return functools.partial(_random, way=way, erase=erase)


def _random(
    image: Image.Image, seed: int, way: Callable[[Image.Image], Image.Image], erase: v2.RandomErasing | None
) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would reseed the GPU's dropout too
        pixels = _pixels(way(image))
        if erase:
            erase(pixels.permute(2, 0, 1))  # in place: the permuted tensor is a view
    return pixels


def _centre(image: Image.Image, seed: int, size: int) -> Tensor:
    side, shorter = side_to_load(size), min(image.size)
    resized = [length * side // shorter for length in image.size]  # rounded as torchvision's Resize does
    starts = [round((length - size) / 2) for length in resized]  # and its CenterCrop
    scales = [length / after for length, after in zip(image.size, resized, strict=True)]
    left, top = (start * scale for start, scale in zip(starts, scales, strict=True))
    right, bottom = ((start + size) * scale for start, scale in zip(starts, scales, strict=True))
    return _pixels(image.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom)))


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))
