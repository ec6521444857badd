"""From a decoded photo to the tensor that the network sees: one pipeline to train, one for everything else."""

import torch
from PIL import Image
from torchvision.transforms import v2

# Channel statistics of ImageNet, which torchvision's pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MAX_ASPECT_RATIO = 8  # beyond it, what a centre crop and its interpolation do not see is cut off beforehand


def train_transform(image_size: int) -> v2.Compose:
    """The reference recipe's augmentation: RGB image → normalised float32 ``(3, image_size, image_size)``.

    Draws from torch's global generator, which the data set seeds for each sample.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(image_size, scale=(0.8, 1.0)),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
            v2.RandomAffine(degrees=15, translate=(0.1, 0.1), scale=(0.9, 1.1)),
            *_to_tensor(),
        ]
    )


def eval_transform(image_size: int) -> v2.Compose:
    """Shorter side to ⌊1.14 · image_size⌋, centre crop, as validation, test and prediction all see an image."""
    return v2.Compose(
        [v2.Lambda(_middle), v2.Resize(image_size * 114 // 100), v2.CenterCrop(image_size), *_to_tensor()]
    )


def _middle(image: Image.Image) -> Image.Image:
    """Cuts the ends off a strip, which the centre crop would do after they were enlarged: 1 × 5000 px to 1 GB."""
    width, height = image.size
    keep = MAX_ASPECT_RATIO * min(width, height)
    # An even number of pixels goes, so that the centre stays where it is.
    x, y = (max(0, side - keep) // 2 for side in (width, height))
    return image.crop((x, y, width - x, height - y)) if x or y else image


def _to_tensor() -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
