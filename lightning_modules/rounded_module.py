"""``RoundedModule``: a network that is evaluated as its export will hold it, as a LightningModule's hooks."""

from typing import Any

import torch
from typing_extensions import override

from lightning_modules.averaged_module import PREFIX, AveragedModule
from lightning_modules.network.rounding import RoundedWeights, rounded

KEY = "unrounded"  # of a checkpoint


class RoundedModule(AveragedModule):
    """A module whose network, averaged or not, is evaluated with its weights rounded to ``export_dtype``.

    In a fit's validations and after the fit, the network shows the rounded weights, in the type that it computes with,
    and else the unrounded ones. Whichever it is, a checkpoint's state dict holds the rounded ones, and the unrounded
    are beside it, for a resume.

    Attributes:
        export_dtype: Type that the export stores weights in, or None for the one that they are trained in. Set before a
            fit, by ``SizeBudget``.
    """

    export_dtype: torch.dtype | None = None
    _rounding: RoundedWeights | None = None  # of the latest fit

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self._rounding = RoundedWeights(self.network, self.export_dtype) if self.export_dtype else None

    def too_large_to_round(self) -> list[str]:
        """Returns the names of the network's tensors with a value that is infinite in ``export_dtype``."""
        return self._rounding.too_large() if self._rounding else []

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        if self._rounding and self._is_in_fit:
            self._rounding.show(True)  # of the average, which is shown by now

    @override
    def on_validation_end(self) -> None:
        if self._rounding and self._is_in_fit:
            self._rounding.show(False)
        super().on_validation_end()

    @override
    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        if self._rounding and stage == "fit":
            self._rounding.show(True)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if not self._rounding:
            return
        dtype, state = self._rounding.dtype, checkpoint["state_dict"]
        hidden = self._hidden_average()  # while the network shows the weights in training, none of which is rounded
        checkpoint[KEY] = hidden.state_dict(prefix=PREFIX) if hidden else self._rounding.originals(PREFIX)
        checkpoint["state_dict"] = {
            name: rounded(x, dtype) if name.startswith(PREFIX) and x.is_floating_point() else x
            for name, x in state.items()
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._rounding:
            self._rounding.show(False)
        if self._is_in_fit:
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **checkpoint.get(KEY, {})}
        super().on_load_checkpoint(checkpoint)
