"""Whether attention attends: how far the gates' factors move from image to image and from place to place."""

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_modules.network.attention import CBAM


class Moments:
    """Sums over images of values ``(images, places)``, which add up over batches and processes."""

    def __init__(self) -> None:
        self.images = 0
        self.sum: Any = 0.0  # (places,)
        self.sum_of_squares: Any = 0.0  # (places,)
        self.sum_of_stds: Any = 0.0  # of each image, over places
        self.active: Any = False  # (places,), whether a value was ever above zero

    def add(self, values: Tensor) -> None:
        """Takes a batch."""
        self.active = self.active | (values > 0).any(0)
        # In float32 the squares of factors near 0.5 would drown a standard deviation of 0.001.
        values = values.float() if values.device.type == "mps" else values.double()
        self.images += len(values)
        self.sum = self.sum + values.sum(0)
        self.sum_of_squares = self.sum_of_squares + values.square().sum(0)
        self.sum_of_stds = self.sum_of_stds + values.std(1, correction=0).sum()

    def merge(self, other: "Moments") -> None:
        """Takes another process's sums, on the CPU."""
        self.images += other.images
        for name in ("sum", "sum_of_squares", "sum_of_stds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.active = self.active | other.active

    def to_cpu(self) -> "Moments":
        """A copy that other processes can take."""
        copy = Moments()
        copy.images = self.images
        for name in ("sum", "sum_of_squares", "sum_of_stds"):
            setattr(copy, name, getattr(self, name).double().cpu())
        copy.active = self.active.cpu()
        return copy

    def compute(self, places: str) -> dict[str, float]:
        """Mean; standard deviation over images, averaged over places; and over places, averaged over images."""
        mean = self.sum / self.images
        variance = (self.sum_of_squares / self.images - mean.square()).clamp(min=0)
        return {
            "mean": float(mean.mean()),
            "std_over_images": float(variance.sqrt().mean()),
            f"std_over_{places}": float(self.sum_of_stds / self.images),
        }


class GateStatistics:
    """Watches every CBAM module of a network while it looks at images.

    Args:
        network: The network; unchanged but for hooks, between ``attach`` and ``detach``.

    Attributes:
        real: Which images of the next batch count, ``(batch,)``; all where it is None.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = {name: module for name, module in network.named_modules() if isinstance(module, CBAM)}
        self._handles: list[RemovableHandle] = []
        self.moments: dict[tuple[str, str], Moments] = {}
        self.real: Tensor | None = None

    def attach(self) -> None:
        """Begins to watch, from zero."""
        self.moments = {}
        for name, module in self._modules.items():
            watched = {"channel": module.channel_gate, "spatial": module.spatial_gate}
            for kind, part in {**watched, "hidden": module.channel_gate.reduce}.items():
                self.moments[name, kind] = Moments()
                self._handles.append(part.register_forward_hook(self._hook(self.moments[name, kind])))

    def _hook(self, moments: Moments) -> Any:
        def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
            values = output.detach().flatten(1)
            moments.add(values if self.real is None else values[self.real])

        return add

    def detach(self) -> None:
        """Ends watching; the sums stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def summarize(moments: dict[tuple[str, str], Moments]) -> dict[str, float]:
    """Numbers of each module: ``layer1/channel_mean`` …, ``layer1/dead_hidden``.

    ``dead_hidden`` is the share of the channel gate's hidden units that no image has made active, so that the gate does
    not depend on the image through them.
    """
    numbers: dict[str, float] = {}
    for (module, kind), sums in moments.items():
        name = module.removeprefix("attention.")
        if not sums.images:
            continue
        if kind == "hidden":
            numbers[f"{name}/dead_hidden"] = 1 - float(sums.active.float().mean())
        else:
            places = "channels" if kind == "channel" else "positions"
            numbers |= {f"{name}/{kind}_{statistic}": x for statistic, x in sums.compute(places).items()}
    return numbers
