"""The reference recipe's augmentation in fewer passes over fewer pixels than torchvision takes."""

import functools
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_hue

LUMA = np.array([0.299, 0.587, 0.114])  # grey of red, green and blue, ITU-R BT.601


def augment(image: Image.Image, steps: list[Any], size: int) -> Image.Image:
    """Carries out ``reference_steps`` with the numbers that torchvision draws for them.

    Colours change before the crop is enlarged, which resampling does not mind, by one matrix (``jitter_colours``). The
    mirror image costs nothing: it is part of the affine map, which takes the nearest pixel, as torchvision's does.

    Args:
        image: RGB image of any size.
        steps: torchvision's crop, flip, colour jitter and affine map.
        size: Side of the result in pixels.
    """
    crop, flip, jitter, affine = steps
    square = (size, size)
    box = crop.make_params([image])  # drawn in the order of the steps, so that a seed means the same as in torchvision
    mirrored = bool(torch.rand(1) < flip.p)
    colours = jitter.make_params([image])
    move = affine.make_params([Image.new("1", square)])  # only the image's size matters
    left, top = box["left"], box["top"]
    region = image.crop((left, top, left + box["width"], top + box["height"]))
    region = jitter_colours(region, **colours).resize(square, Image.Resampling.BILINEAR)
    matrix = _source_of(size, mirrored, **move)
    return region.transform(square, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def jitter_colours(
    image: Image.Image,
    fn_idx: Tensor,
    brightness_factor: float,
    contrast_factor: float,
    saturation_factor: float,
    hue_factor: float,
) -> Image.Image:
    """Does what torchvision's ``ColorJitter`` does with these parameters, as one colour matrix.

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
    """Returns the matrix ``(3, 3)`` nearest to a shift of hue over the RGB cube, of those that leave grey as it is.

    Args:
        shift: Angle in 256ths of the circle, as Pillow stores hue.
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
    """Returns the map from each point of a square to where it comes from: the inverse of rotation, scale and shift.

    Args:
        size: Side of the square in pixels.
        mirrored: Whether left and right change places beforehand.
        angle: Rotation about the centre in degrees, clockwise.
        translate: Shift to the right and down in pixels.
        scale: Enlargement.
        shear: Always 0, as the recipe has none.

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
