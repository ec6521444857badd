"""From a decoded photo to the pixels that a batch holds: two ways to train, one for everything else.

All of them map an RGB image and a seed to uint8 ``(image_size, image_size, 3)``. ``normalize`` follows on the device,
for a whole batch: a loader hands over a quarter of the bytes that float32 would take.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import adjust_hue

# Channel statistics of ImageNet, which torchvision's pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = np.array([0.299, 0.587, 0.114])  # grey of red, green and blue, ITU-R BT.601

Transform = Callable[[Image.Image, int], Tensor]


def side_to_load(image_size: int) -> int:
    """⌊1.14 · image_size⌋: the shorter side in pixels that validation resizes to, and to which images are loaded."""
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


def reference_steps(image_size: int) -> list[v2.Transform]:
    """The reference recipe's augmentation, in its order."""
    return [
        v2.RandomResizedCrop(image_size, scale=(0.8, 1.0)),
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
        v2.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1)),
    ]


def reference_transform(image_size: int) -> Transform:
    """The reference's steps as torchvision carries them out, one after the other."""
    return functools.partial(_step_by_step, steps=reference_steps(image_size))


def train_transform(image_size: int) -> Transform:
    """The reference's steps with the numbers that torchvision draws for them, in fewer passes over fewer pixels.

    Colours change before the crop is enlarged, which resampling does not mind, by one matrix (``jitter_colours``). The
    mirror image costs nothing: it is part of the affine map, which takes the nearest pixel, as torchvision's does.
    """
    return functools.partial(_fused, steps=reference_steps(image_size), size=image_size)


def eval_transform(image_size: int) -> Transform:
    """Shorter side to ``side_to_load``, centre crop, as validation, test and prediction all see an image.

    In one resampling of what the crop will show: a strip of 1 × 5000 pixels would take 1 GB if it were resized first.
    """
    return functools.partial(_centre, size=image_size)


def _step_by_step(image: Image.Image, seed: int, steps: list[v2.Transform]) -> Tensor:
    with _seeded(seed):
        for step in steps:
            image = step(image)
    return _pixels(image)


def _fused(image: Image.Image, seed: int, steps: list[Any], size: int) -> Tensor:
    crop, flip, jitter, affine = steps
    square = (size, size)
    with _seeded(seed):  # in the order of the steps, so that one seed means the same image in both ways
        box = crop.make_params([image])
        mirrored = bool(torch.rand(1) < flip.p)
        colours = jitter.make_params([image])
        move = affine.make_params([Image.new("1", square)])  # of which it asks the size
    left, top = box["left"], box["top"]
    region = image.crop((left, top, left + box["width"], top + box["height"]))
    region = jitter_colours(region, **colours).resize(square, Image.Resampling.BILINEAR)
    matrix = _source_of(size, mirrored, **move)
    return _pixels(region.transform(square, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST))


def _centre(image: Image.Image, seed: int, size: int) -> Tensor:
    side, shorter = side_to_load(size), min(image.size)
    resized = [length * side // shorter for length in image.size]  # rounded as torchvision's Resize does
    starts = [round((length - size) / 2) for length in resized]  # and its CenterCrop
    scales = [length / after for length, after in zip(image.size, resized, strict=True)]
    left, top = (start * scale for start, scale in zip(starts, scales, strict=True))
    right, bottom = ((start + size) * scale for start, scale in zip(starts, scales, strict=True))
    return _pixels(image.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom)))


def jitter_colours(
    image: Image.Image,
    fn_idx: Tensor,
    brightness_factor: float,
    contrast_factor: float,
    saturation_factor: float,
    hue_factor: float,
) -> Image.Image:
    """What torchvision's ``ColorJitter`` does with these parameters, as one colour matrix.

    Brightness, contrast and saturation are linear in RGB. A shift of hue is not; ``hue_matrix`` comes near. Values are
    rounded and clipped once, at the end.
    """
    matrix = np.eye(3, 4)
    for step in fn_idx.tolist():
        match step:
            case 0:
                matrix *= brightness_factor
            case 1:  # towards the grey of the image's mean
                levels = np.array(image.histogram()).reshape(3, 256) @ np.arange(256)
                grey = LUMA @ matrix @ [*levels / math.prod(image.size), 1]
                matrix *= contrast_factor
                matrix[:, 3] += (1 - contrast_factor) * grey
            case 2:  # towards each pixel's grey
                matrix = saturation_factor * matrix + (1 - saturation_factor) * (LUMA @ matrix)
            case 3:
                matrix = hue_matrix(int(hue_factor * 255)) @ matrix
    return image.convert("RGB", tuple(matrix.ravel().tolist()))


@functools.cache
def hue_matrix(shift: int) -> np.ndarray:
    """The matrix ``(3, 3)`` nearest to a shift of hue over the RGB cube, of those that leave grey as it is.

    Args:
        shift: In 256ths of the circle, as Pillow stores hue.
    """
    levels = torch.linspace(0, 1, 9)
    cube = torch.cartesian_prod(levels, levels, levels).T[..., None]  # as an image of one column
    after = adjust_hue(cube, shift / 256)
    weight = 1e3  # of grey
    colours, turned = (torch.cat([image[..., 0].T, torch.full((1, 3), weight)]).double() for image in (cube, after))
    return torch.linalg.lstsq(colours, turned).solution.T.numpy()


def _source_of(
    size: int, mirrored: bool, angle: float, translate: tuple[int, int], scale: float, shear: tuple[float, float]
) -> tuple[float, ...]:
    """Which point of a square each of its points comes from: the inverse of turning, scaling and shifting it.

    Args:
        size: Side of the square in pixels.
        mirrored: Whether left and right change places beforehand.
        angle: In degrees, clockwise, about the centre.
        translate: Shift to the right and down in pixels.
        scale: Factor.
        shear: The recipe has none.

    Returns:
        ``(a, b, c, d, e, f)`` of x' = ax + by + c, y' = dx + ey + f.
    """
    assert shear == (0.0, 0.0)
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    centre = size / 2
    x, y = centre + translate[0], centre + translate[1]
    row = (cos, sin, centre - cos * x - sin * y)
    if mirrored:
        row = (-row[0], -row[1], size - row[2])
    return (*row, -sin, cos, centre + sin * x - cos * y)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would reseed the GPU's dropout too
        yield


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))
