"""Fitting of the temperature that calibrates a model's probabilities, on the validation images of a fit."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from typing_extensions import override

from callbacks.predictions.answers import AnswerCollector, ValidationAnswers
from callbacks.processes import gather
from callbacks.trainer_parts import data_of
from lightning_modules.classifier import ImageClassifier
from lightning_modules.metrics.temperature import CALIBRATED, HIGHEST, LOWEST, cross_fitted, fit_temperature


class TemperatureFit(ValidationAnswers):
    """Gives the model a temperature after each validation of a fit with ``--model.temperature fit``.

    Checkpoints and exports are made after it, so that each holds the temperature of its weights. Logs it, and the
    likelihood and the calibration error that it leads to on images that it was not fitted on.
    """

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fits = isinstance(pl_module, ImageClassifier) and pl_module.hparams["temperature"] == "fit"
        fits &= trainer.state.fn == "fit" and not trainer.sanity_checking
        self._answers = AnswerCollector(len(data_of(trainer).dataset("val")), keep_logits=True) if fits else None

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self._answers and isinstance(pl_module, ImageClassifier)):
            return
        answers, self._answers = self._answers.finish(trainer), None
        numbers: list[float] = []
        if trainer.is_global_zero:  # the others have the same logits, and would only take its cores
            assert answers.logits is not None
            measured = cross_fitted(answers.logits, answers.targets)
            numbers = [fit_temperature(answers.logits, answers.targets), *measured.values()]
        numbers = gather(trainer, numbers)[0]
        temperature = pl_module.temperature = numbers[0]
        # Equal on all processes, whose mean might differ in the last bit.
        logged = dict(zip(CALIBRATED, numbers, strict=True))
        pl_module.log_dict(logged, on_epoch=True, logger=False, sync_dist=True, reduce_fx="max")
        if temperature in (LOWEST, HIGHEST):
            why = "is classified correctly" if temperature == LOWEST else "gets logits that say little about its class"
            rank_zero_warn(
                f"the temperature stays at its bound of {temperature:g}, as nearly every validation image {why}"
            )
