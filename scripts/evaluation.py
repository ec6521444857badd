"""A finished run's best weights, answering for its own validation images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from callbacks import BadImages
from callbacks.predictions.answers import AnswerCollector, Answers
from callbacks.run.run_folder import RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier
from lightning_modules.trained_model import TrainedModel, load_classifier
from scripts.hardware import set_tf32


@dataclass(frozen=True)
class RunEvaluation:
    """What the best weights of a run answer for the images that chose them.

    Attributes:
        model: The model, on the CPU.
        data: Its data, set up for a validation.
        answers: Its answers, with logits.
        reliability: Number of images, mean confidence and accuracy of each bin of the calibration error.
        metrics: The metrics by name.
    """

    model: ImageClassifier
    data: ImageFolderDataModule
    answers: Answers
    reliability: tuple[Tensor, Tensor, Tensor]
    metrics: Mapping[str, float]


class _Recorder(Callback):
    """Collects the answers and the calibration of a validation.

    Args:
        images: Number of validation images.
        temperature: What logits are divided by for probabilities.
    """

    answers: Answers
    reliability: tuple[Tensor, Tensor, Tensor]

    def __init__(self, images: int, temperature: float) -> None:
        self._collector = AnswerCollector(images, temperature, keep_logits=True)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._collector.add(batch, outputs)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.answers = self._collector.finish(trainer)
        self.reliability = pl_module.val_metrics["ece"].reliability()  # type: ignore[index, union-attr]


def validation_data(trained: TrainedModel, options: Mapping[str, Any]) -> ImageFolderDataModule:
    """Returns the data of a trained model, set up for a validation.

    Args:
        trained: The trained model, whose own options take the place of others where the images follow from them.
        options: Options of the data module, such as its root, of which a trained model knows nothing.

    Raises:
        UserError: The root is missing, or has no validation images or other classes.
    """
    data = ImageFolderDataModule(**{**options, **trained.data, "class_names": list(trained.model["class_names"])})
    data.fit_held_out = trained.held_out
    data.setup("validate")
    return data


def evaluate_run(run: RunFolder, options: Mapping[str, Any], accelerator: str = "auto") -> RunEvaluation:
    """Validates the best weights of a run on the images that chose them, with one process.

    Args:
        run: Folder of a fit with a best epoch.
        options: As for ``validation_data``.
        accelerator: Accelerator of Lightning's ``Trainer``.

    Raises:
        UserError: The folder is not that of such a fit, or its images are not there any more.
    """
    manifest = run.read_manifest()
    model, trained = load_classifier(run.weights)
    data = validation_data(trained, options)
    if data.fingerprint["val"] != manifest["data"]["val"]:
        raise UserError(
            f"{data.root} does not hold the {manifest['data']['val']['images']} validation images of the run "
            f"{run.path}, as names or sizes in bytes differ: restore them, or pass --data.root"
        )
    recorder = _Recorder(len(data.dataset("val")), model.temperature)
    set_tf32(trained.precision)
    trainer = Trainer(
        accelerator=accelerator, logger=False, callbacks=[BadImages(), recorder],
        precision=trained.precision,  # type: ignore[arg-type]
        enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False, devices=1,
    )  # fmt: skip
    (metrics,) = trainer.validate(model, data, verbose=False)
    return RunEvaluation(model.cpu().eval(), data, recorder.answers, recorder.reliability, metrics)
