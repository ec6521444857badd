"""``cbam100 explain``: draws where a network looks in each image."""

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
from lightning_modules.trained_model import load_classifier
from scripts.arguments import Arguments
from scripts.explain.map_figure import map_figure


def explain(ckpt_path: str | Path, images: Sequence[str | Path], *, output: str | Path) -> list[Path]:
    """Draws the spatial gates of each stage and Grad-CAM of the predicted class over each image.

    Example:
        >>> explain("model.safetensors", ["cat.jpg"], output="maps")  # doctest: +SKIP
        [PosixPath('maps/cat.jpg.png')]

    Args:
        ckpt_path: The trained model, a .ckpt or .safetensors file.
        images: Image files of any size.
        output: Folder for <image>.png; created if missing.

    Returns:
        Paths of the pictures, in the order of the images.

    Raises:
        UserError: The model or an image cannot be read, two images have the same name, or a picture would replace an
            image or another program's file.
    """
    return list(_drawn(Path(ckpt_path), [Path(image) for image in images], Path(output)))


def main(words: list[str]) -> None:
    """Runs ``cbam100 explain`` and prints the path of each picture once it is drawn."""
    parser = Arguments(prog="cbam100 explain")
    metavars = {"ckpt_path": "FILE", "images": "IMAGE", "output": "DIR"}
    parser.add_parameters(explain, spelled={"images": "images"}, metavars=metavars)
    for picture in _drawn(**vars(parser.parse_args(words))):
        print(picture)


def _drawn(ckpt_path: Path, images: Sequence[Path], output: Path) -> Iterator[Path]:
    names = [f"{path.name}.png" for path in images]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"several images would be drawn to {listed(twice)}: explain images of the same name separately")
    require_outside_splits(output, "--output")
    for name in names:
        require_replaceable(output / name, PICTURE, "--output", images)
    model, trained = load_classifier(ckpt_path)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {output} ({error.strerror}): choose another --output") from error
    require_writable(output, "--output")
    size = trained.data["image_size"]
    for path, name in zip(images, names, strict=True):
        image = eval_transform(size)(read_image(str(path), shorter_side=side_to_load(size)), 0).numpy()
        write_bytes(output / name, explain_image(model, image, short(path.name)))
        yield output / name


def explain_image(model: ImageClassifier, image: np.ndarray, title: str) -> bytes:
    """Draws the attention over one image, as it enters the network: uint8 ``(size, size, 3)``; returns a PNG file."""
    batch = normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    logits, gates = spatial_gates(model.network, batch)
    predicted = logits[0].argmax()
    probability = (logits.float() / model.temperature).softmax(1)[0, predicted]
    cam = grad_cam(model.network, batch, predicted[None])[0]
    target = f"{short(model.classes.names[int(predicted)])} {probability:.2f}"
    maps = {stage: factors[0].numpy() for stage, factors in gates.items()}
    return to_png(map_figure(image, title, maps, cam.numpy(), target))
