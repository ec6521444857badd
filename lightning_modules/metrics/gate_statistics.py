"""Statistics of attention gates: how much their factors vary between images and between positions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from lightning_modules.network.attention import CBAM


class Moments(Metric):
    """Mean and spread of values ``(images, places)``, from sums over the images of all processes."""

    full_state_update = False
    images: Tensor
    sum: Tensor  # (places,)
    sum_of_squares: Tensor  # (places,)
    sum_of_stds: Tensor  # of each image, over places
    active: Tensor  # (places,), how many images had a value above zero

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("images", "sum", "sum_of_squares", "sum_of_stds", "active"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")  # takes shape and type of what is added

    def update(self, values: Tensor) -> None:
        """Adds values ``(batch, places)``."""
        self.active = self.active + (values > 0).sum(0)
        # In float32, the squares of factors near 0.5 would swamp a standard deviation of 0.001.
        values = values.double() if values.device.type in ("cpu", "cuda") else values.float()  # others may lack float64
        self.images = self.images + len(values)
        self.sum = self.sum + values.sum(0)
        self.sum_of_squares = self.sum_of_squares + values.square().sum(0)
        self.sum_of_stds = self.sum_of_stds + values.std(1, correction=0).sum()

    def compute(self) -> dict[str, float]:
        """Returns the mean, the standard deviations over images and over places, and the share of inactive places.

        Each standard deviation is averaged over the other dimension. The dictionary is empty without images.
        """
        images = self.images.cpu()
        if not images:
            return {}
        mean, mean_square, std = (x.cpu().double() / images for x in (self.sum, self.sum_of_squares, self.sum_of_stds))
        return {
            "mean": float(mean.mean()),
            "std_over_images": float((mean_square - mean.square()).clamp(min=0).sqrt().mean()),
            "std_over_places": float(std),
            "dead": 1 - float((self.active > 0).float().mean()),
        }


class GateStatistics:
    """Records the gate factors of every CBAM module of a network during its forward passes.

    Args:
        network: Network that is given hooks until ``finish`` is called.

    Attributes:
        real: Boolean mask ``(batch,)`` of the images of the next batch that count, or None for all.
    """

    def __init__(self, network: nn.Module) -> None:
        self.real: Tensor | None = None
        self._moments: dict[tuple[str, str], Moments] = {}
        self._handles: list[RemovableHandle] = []
        for name, module in network.named_modules():
            if isinstance(module, CBAM):
                watched = {"channel": module.channel_gate, "spatial": module.spatial_gate}
                for kind, part in {**watched, "hidden": module.channel_gate.reduce}.items():
                    moments = self._moments[name, kind] = Moments().to(next(part.parameters()).device)
                    self._handles.append(part.register_forward_hook(self._hook(moments)))

    def _hook(self, moments: Moments) -> Any:
        def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
            values = output.detach().flatten(1)
            moments.update(values if self.real is None else values[self.real])

        return add

    def finish(self) -> dict[str, float]:
        """Removes the hooks and returns the statistics; a collective operation.

        Returns:
            Statistics of each module over all processes: ``layer1/channel_mean`` …, and ``layer1/dead_hidden``, the
            share of the channel gate's hidden units that no image has activated.
        """
        for handle in self._handles:
            handle.remove()
        numbers: dict[str, float] = {}
        for (module, kind), moments in self._moments.items():
            name = module.removeprefix("attention.")
            if not (statistics := moments.compute()):
                continue
            if kind == "hidden":
                numbers[f"{name}/dead_hidden"] = statistics["dead"]
            else:
                numbers[f"{name}/{kind}_mean"] = statistics["mean"]
                numbers[f"{name}/{kind}_std_over_images"] = statistics["std_over_images"]
                places = "channels" if kind == "channel" else "positions"
                numbers[f"{name}/{kind}_std_over_{places}"] = statistics["std_over_places"]
        return numbers
