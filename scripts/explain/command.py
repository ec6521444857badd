"""``cbam100 explain``: where a network looks in an image, as a picture for each."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from callbacks.figures.draw import short, to_png
from datamodules.files.atomic_file import require_writable, write_bytes
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import PICTURE, require_replaceable
from datamodules.images.read import read_image
from datamodules.images.transforms import eval_transform, normalize, side_to_load
from datamodules.split_names import require_outside_splits
from lightning_modules import ImageClassifier
from lightning_modules.network.attention_maps import grad_cam, spatial_gates
from scripts.arguments import Arguments
from scripts.explain.map_figure import map_figure
from scripts.trained_classifier import load_classifier


def explain(ckpt_path: str | Path, images: Sequence[str | Path], *, output: str | Path) -> list[Path]:
    """Draws the spatial gates of each stage and Grad-CAM of the predicted class over each image.

    Example:
        >>> explain("model.safetensors", ["cat.jpg"], output="maps")  # doctest: +SKIP
        [PosixPath('maps/cat.jpg.png')]

    Args:
        ckpt_path: A .ckpt or .safetensors file.
        images: Pictures of any size.
        output: Folder that gets <image>.png; it is made.

    Returns:
        The pictures, in the order of the images.

    Raises:
        UserError: The model or an image cannot be read, two images would share a picture, or a picture's place is an
            image's or is taken.
    """
    return list(_drawn(Path(ckpt_path), [Path(image) for image in images], Path(output)))


def main(words: list[str]) -> None:
    """``cbam100 explain`` with these words; prints the path of each picture once it is drawn."""
    parser = Arguments(prog="cbam100 explain")
    metavars = {"ckpt_path": "FILE", "images": "IMAGE", "output": "DIR"}
    parser.add_parameters(explain, spelled={"images": "images"}, metavars=metavars)
    for picture in _drawn(**vars(parser.parse_args(words))):
        print(picture)


def _drawn(ckpt_path: Path, images: Sequence[Path], output: Path) -> Iterator[Path]:
    names = [f"{path.name}.png" for path in images]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"expected images of different names, got {listed(twice)} more than once: explain them apart")
    require_outside_splits(output, "--output")
    for name in names:
        require_replaceable(output / name, PICTURE, "--output", images)
    model, trained = load_classifier(ckpt_path)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"expected --output to be a folder, {output} is not ({error.strerror})") from error
    require_writable(output, "--output")
    size = trained.data["image_size"]
    for path, name in zip(images, names, strict=True):
        image = eval_transform(size)(read_image(str(path), shorter_side=side_to_load(size)), 0).numpy()
        write_bytes(output / name, explain_image(model, image, short(path.name)))
        yield output / name


def explain_image(model: ImageClassifier, image: np.ndarray, title: str) -> bytes:
    """The picture of one image, uint8 ``(size, size, 3)``, as the network sees it."""
    batch = normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    logits, gates = spatial_gates(model.network, batch)
    probability, predicted = logits.float().softmax(1)[0].max(0)
    cam = grad_cam(model.network, batch, predicted[None])[0]
    target = f"{short(model.classes.names[int(predicted)])} {probability:.2f}"
    maps = {stage: factors[0].numpy() for stage, factors in gates.items()}
    return to_png(map_figure(image, title, maps, cam.numpy(), target))
