"""``predict`` with an exported graph, an ``.onnx`` or ``.xml`` file, in place of the network."""

from functools import partial
from pathlib import Path

from jsonargparse import Namespace

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier
from lightning_modules.differing_options import differences
from lightning_modules.exports.runtime import open_runtime
from lightning_modules.predictor import FilePredictor, Predictor
from lightning_modules.trained_model import TrainedModel

FLOAT32 = (None, "32-true", "32", 32)


def require_usable_options(config: Namespace, trained: TrainedModel) -> None:
    """Checks that no option asks for what the file cannot do, and sets those of the Trainer that it decides.

    Args:
        config: Options of predict.
        trained: What the file says about itself.

    Raises:
        UserError: An option would have no effect.
    """
    given = {**config.model.as_dict(), "image_size": config.data.image_size}
    saved = {**trained.model, "image_size": trained.data["image_size"]}
    if differing := differences(saved, {name: value for name, value in given.items() if name in saved}):
        raise UserError(
            f"{config.ckpt_path} answers as it was exported, so options of the model cannot change it ({differing}): "
            "leave them out, or pass the .ckpt or .safetensors file"
        )
    trainer = config.trainer
    if trainer.accelerator not in ("auto", "cpu"):
        raise UserError(
            f"{config.ckpt_path} runs on the CPU, but --trainer.accelerator is {trainer.accelerator}: leave it out"
        )
    if trainer.precision not in FLOAT32:
        raise UserError(
            f"the precision of {config.ckpt_path} was chosen when it was exported, so --trainer.precision "
            f"{trainer.precision} has no effect: leave it out"
        )
    trainer.accelerator, trainer.precision = "cpu", "32-true"


def answer_with_file(path: Path, model: ImageClassifier, data: ImageFolderDataModule) -> None:
    """Makes every process of a prediction open the file, and gives it the images as they were loaded."""
    model.make_predictor = partial(_predictor, path)
    model.has_weights = True  # none are to be downloaded
    data.normalizes = False


def _predictor(path: Path, model: ImageClassifier) -> Predictor:
    return FilePredictor(open_runtime(path))
