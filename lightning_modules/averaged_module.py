"""``AveragedModule``: an average of the weights of a network in training, as a LightningModule's hooks."""

from typing import Any

from pytorch_lightning.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn
from typing_extensions import override

from datamodules.files.errors import UserError, listed
from lightning_modules.network.weight_average import WeightAverage, decay_for
from lightning_modules.optimized_module import OptimizedModule

KEY = "ema"  # of a checkpoint
PREFIX = "network."
# With any other, weights have 16 bits, and their average would not move: its steps are smaller than the last digit.
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
# Callbacks that average weights themselves, or replace them by others.
OTHERS = (WeightAveraging, StochasticWeightAveraging, ModelPruning)


class AveragedModule(OptimizedModule):
    """A module whose network is evaluated with an average of its weights, as the hyper-parameter ``ema_decay`` says.

    In a fit's validations and after the fit, the network shows the average, and else the weights in training. Whichever
    it is, a checkpoint's state dict holds the average, and the trained weights are beside it, for a resume. In place of
    Lightning 2.6's callback, whose checkpoints have the two mixed up if they are saved inside a validation.
    """

    _average: WeightAverage | None = None  # of the latest fit
    _decay = 0.0

    @property
    def needs_length(self) -> list[str]:
        """The options, as they are typed, whose effect depends on the length of the run."""
        return [*super().needs_length, *(["--model.ema_decay auto"] if self.hparams["ema_decay"] == "auto" else [])]

    @property
    def _is_in_fit(self) -> bool:
        return bool(self._trainer) and self.trainer.state.fn == TrainerFn.FITTING

    def _current_average(self) -> WeightAverage | None:
        """Returns the average of the latest fit; the first call in a fit begins it with the current weights."""
        if self._average is None and self.hparams["ema_decay"] and self._is_in_fit:
            self._average = WeightAverage(self.network, self.trainer.strategy.root_device)
        return self._average

    def _hidden_average(self) -> nn.Module | None:
        """Returns the module that holds the average while the network shows the weights in training, else None."""
        average = self._current_average()
        return average.averaged if average and average.averaged is not self.network else None

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        self._average = None
        decay, precision = self.hparams["ema_decay"], self.trainer.precision
        others = [type(other).__name__ for other in self.trainer.callbacks if isinstance(other, OTHERS)]  # type: ignore[attr-defined]
        if decay and precision not in PRECISIONS:
            raise UserError(
                f"--model.ema_decay {decay} does not work with --trainer.precision {precision}, whose weights have too "
                "few digits to average: use bf16-mixed or 32-true"
            )
        if decay and others:
            raise UserError(
                f"--model.ema_decay {decay} cannot be combined with {listed(others)}, which changes the weights that "
                "it averages: leave one of them out"
            )

    @override
    def on_train_start(self) -> None:  # by now a tuner has chosen the batch size
        super().on_train_start()
        decay = self.hparams["ema_decay"]
        self._decay = decay_for(self.run_steps()) if decay == "auto" else decay

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        average = self._current_average()  # now, so that it begins with the weights before the first step
        super().optimizer_step(*args, **kwargs)
        if average:
            average.update(self._decay)

    @override
    def on_validation_start(self) -> None:
        if average := self._current_average():
            average.show(True)

    @override
    def on_validation_end(self) -> None:
        if self._average and self._is_in_fit:
            self._average.show(False)

    @override
    def teardown(self, stage: str) -> None:
        if self._average and stage == "fit":
            self._average.show(True)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if average := self._current_average():
            averaged, trained = (part.state_dict(prefix=PREFIX) for part in (average.averaged, average.trained))
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **averaged}
            checkpoint[KEY] = {"updates": average.updates, "trained": trained}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self._is_in_fit:
            return
        # Lightning does so only after it has loaded the weights, which loses the digits of 64 bits.
        self.trainer.precision_plugin.convert_module(self)
        if KEY not in checkpoint:
            return
        averaged, trained = checkpoint["state_dict"], checkpoint[KEY]["trained"]
        if average := self._current_average():
            average.show(False)
            average.averaged.load_state_dict({name.removeprefix(PREFIX): averaged[name] for name in trained})
            average.updates = checkpoint[KEY]["updates"]
        checkpoint["state_dict"] = {**averaged, **trained}  # for Lightning to load
