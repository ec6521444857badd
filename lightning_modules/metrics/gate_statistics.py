"""Whether attention attends: how far the gates' factors move from image to image and from place to place."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from lightning_modules.network.attention import CBAM


class Moments(Metric):
    """How values ``(images, places)`` move, from sums over the images of all processes."""

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
        """Adds a batch."""
        self.active = self.active + (values > 0).sum(0)
        # In float32 the squares of factors near 0.5 would drown a standard deviation of 0.001.
        values = values.float() if values.device.type == "mps" else values.double()
        self.images = self.images + len(values)
        self.sum = self.sum + values.sum(0)
        self.sum_of_squares = self.sum_of_squares + values.square().sum(0)
        self.sum_of_stds = self.sum_of_stds + values.std(1, correction=0).sum()

    def compute(self) -> dict[str, float]:
        """Mean; standard deviation over images, averaged over places; and over places, averaged over images.

        And the share of places that no image has made active. Nothing where there was no image.
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
    """Watches every CBAM module of a network while it looks at images.

    Args:
        network: The network; unchanged but for hooks, until ``finish``.

    Attributes:
        real: Which images of the next batch count, ``(batch,)``; all where it is None.
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
        """Ends watching; a collective operation.

        Returns:
            Numbers of each module over all processes: ``layer1/channel_mean`` …, ``layer1/dead_hidden``, the share of
            the channel gate's hidden units that no image has made active, so that the gate does not depend on the image
            through them.
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
