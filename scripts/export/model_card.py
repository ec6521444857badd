"""``MODEL_CARD.md``: what whoever gets an exported file should know about it."""

import json
from pathlib import Path

from callbacks.run.manifest import versions
from datamodules import ImageFolderDataModule
from datamodules.images.transforms import side_to_load
from lightning_modules import ImageClassifier
from lightning_modules.metrics.proportions import wilson_interval
from lightning_modules.network.model_size import format_size, parameter_count
from scripts.console import counted
from scripts.export.acceptance import CLEAR, Evaluation, Fidelity
from scripts.export.card_edits import sealed
from scripts.export.fresh_process import FileAnswers


def model_card(
    model: ImageClassifier,
    data: ImageFolderDataModule,
    checkpoint: Evaluation,
    answers: FileAnswers,
    comparison: Fidelity,
    *,
    files: list[str],
    size: int,
    format: str,
    precision: str,
    max_drop: float,
    licence: str,
) -> str:
    """Returns the text of the card.

    Args:
        model: The exported classifier.
        data: Its validation data.
        checkpoint: The checkpoint's answers on them.
        answers: The file's answers.
        comparison: How they differ.
        files: Names of the exported files.
        size: Their bytes.
        format: Format of the files.
        precision: Precision of their weights.
        max_drop: Largest loss of accuracy that was allowed.
        licence: Value of the field ``license``.
    """
    options, names, images = model.hparams, model.classes.names, comparison.images
    size_px = data.image_size
    attention = "without attention" if options["attention"] == "none" else "with CBAM attention"
    k = min(5, len(names))
    top = [("top-1, this file", comparison.right), ("top-1, the checkpoint in float32", comparison.checkpoint_right)]
    top += [(f"top-{k}, the checkpoint in float32", checkpoint.right_among(k))]
    rows = "\n".join(f"| {name} | {right / images:.4f} | {_interval(right, images)} |" for name, right in top)
    rule = (
        "The class must be the same wherever the checkpoint's two best logits lie more than "
        f"{CLEAR:g} apart ({precision})."
        if precision == "fp32"
        else f"The accuracy may be at most {100 * max_drop:g} percentage points lower than the checkpoint's."
    )
    held_out = (
        f" {data.partition.description.capitalize()}, {counted(images, 'image')}, "
        f"{'was' if images == 1 else 'were'} held out of the training images."
        if data.held_out
        else ""
    )
    views = (
        "two, the image and its mirror image; their probabilities are averaged"
        if options["tta"] == "hflip"
        else "one, the image as it is"
    )
    calibrated = (
        f"Its probabilities are calibrated with the temperature {model.temperature:.4g}, fitted on validation images."
        if options["temperature"] == "fit"
        else "Its probabilities are not calibrated: a network is usually more certain than it is right."
    )
    classes = "\n".join(json.dumps(name, ensure_ascii=not name.isprintable()) for name in names)
    return sealed(f"""---
license: {licence}
pipeline_tag: image-classification
---

# {options["backbone"]} {attention}, {len(names)} classes

Written by `cbam100 export --format {format} --precision {precision}`, version {versions()["cbam100"]}.

## What it is

| | |
|---|---|
| task | one of {len(names)} classes for each image |
| network | {options["backbone"]} {attention}, {parameter_count(model.network):,} parameters |
| files | {" and ".join(files)} |
| size | {format_size(size)}, {size:,} bytes |
| precision of the weights | {precision} |
| input | {_input(format, size_px)} |
| preparation | turn the image upright by its EXIF tag, convert to RGB, resize its shorter side to \
{side_to_load(size_px)} pixels with an antialiased bilinear filter (as Pillow's), crop the centre |
| views | {views} |
| output | probabilities `(batch, {len(names)})`, in the order of the classes below |
| initial weights | {_shown(Path(options["weights"]).name)} |

## Data

Trained on images of the classes below, and measured on {counted(images, "other")} (SHA-256 of names and sizes \
{data.fingerprint["val"]["sha256"]}).{held_out} Describe here where the images come from, and \
who may use them.

## Results on the validation images

| accuracy | share | 95 % interval (Wilson) |
|---|---|---|
{rows}

A fit chooses its best epoch by the accuracy on its validation images. Where this is that epoch and these are those
images, the accuracy is a little higher than on new ones.

## How the file was checked

A fresh process loaded the finished file and classified {counted(images, "validation image")}, all there are, with \
{answers.runtime}.

| | |
|---|---|
| same class as the checkpoint in float32 | {comparison.agreeing:,} of {images:,} ({comparison.agreeing / images:.4f}) |
| largest difference of a probability | {comparison.largest_difference:.2g} |
| only the checkpoint is right, only this file is | {comparison.only_checkpoint:,}, {comparison.only_file:,} |
| McNemar's exact test of the accuracies | p = {comparison.p_value:.2g} |

{rule}

## Limits

- It names one of its classes for any image, also for one that shows none of them.
- The results hold for images like those it was measured on, prepared as described above: another filter changes them.
- {calibrated}
- It was checked on a CPU with this runtime; others round differently.

## Licence

See `license` in the first lines, which is kept when the file is exported again. A card with any other change is not
replaced: move it away before.

## Classes

```
{classes}
```
""")


def _interval(right: int, images: int) -> str:
    low, high = wilson_interval(right, images)
    return f"{low:.4f} to {high:.4f}"


def _input(format: str, size: int) -> str:
    if format == "safetensors":
        return f"normalised RGB, float `(batch, 3, {size}, {size})`; mean and standard deviation are in the header"
    return f"RGB, uint8 `(batch, {size}, {size}, 3)`; the file normalises"


def _shown(text: str) -> str:
    return json.dumps(text)[1:-1].replace("|", "\\|")
