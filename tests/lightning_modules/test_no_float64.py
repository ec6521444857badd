"""Apple's GPUs have no float64. None can be had here, so a device without it is made up: ``meta``, which computes."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from datamodules.image_dataset import Batch
from datamodules.images.transforms import normalize
from lightning_modules import ImageClassifier, focal_loss
from lightning_modules.metrics.gate_statistics import GateStatistics
from lightning_modules.metrics.temperature import answers_of_views
from lightning_modules.network.inference import for_inference
from lightning_modules.network.optimization import build_optimizer

pytestmark = pytest.mark.usefixtures("wide_resnet18")
META = torch.device("meta")


class OnDevice(torch.Tensor):
    """A tensor that says it is on ``meta``, and has its values in ``held``."""

    @staticmethod
    def __new__(cls, held):
        options = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=META, **options)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return NoFloat64().__torch_dispatch__(func, types, args, kwargs)


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        there = any(isinstance(value, OnDevice) for value in tree_flatten((args, kwargs))[0])
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]) == META
            kwargs["device"] = torch.device("cpu")
        result = func(
            *tree_map_only(OnDevice, lambda x: x.held, args), **tree_map_only(OnDevice, lambda x: x.held, kwargs)
        )

        def put(tensor):
            assert tensor.dtype not in (torch.float64, torch.complex128), f"{func} makes {tensor.dtype} on the device"
            return OnDevice(tensor)

        return tree_map_only(torch.Tensor, put, result) if there else result


def test_a_float64_tensor_on_the_device_is_noticed():
    with NoFloat64():
        on_device = torch.ones(2, device=META) + 1
        assert on_device.cpu().double().tolist() == [2.0, 2.0]
        for make in (on_device.double, lambda: torch.zeros(1, dtype=torch.float64, device=META)):
            with pytest.raises(AssertionError, match=r"makes torch\.float64 on the device"):
                make()


def test_no_step_needs_float64_on_the_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which is off, but does not know the device
    torch.manual_seed(0)
    model = ImageClassifier(class_names=["a", "b", "c"], backbone="resnet18", weights="none")
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(pixels, torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))
    expected = {}
    for place in ("cpu", META):
        with NoFloat64():
            torch.manual_seed(1)
            copy = ImageClassifier(class_names=["a", "b", "c"], backbone="resnet18", weights="none")
            copy.load_state_dict(model.state_dict())
            copy.to(place).train()
            images, targets = normalize(batch.images.to(place)), batch.targets.to(place)
            optimizer = build_optimizer(copy.parameters(), learning_rate=1e-3, weight_decay=1e-4, fused=False)
            statistics = GateStatistics(copy.network)
            logits = copy(images)
            losses = focal_loss(logits, targets, gamma=2.0, reduction="none")
            losses.mean().backward()
            optimizer.step()
            numbers = {}
            for metrics in (copy.train_metrics, copy.val_metrics):
                metrics.update(preds=logits.detach(), target=targets, value=losses.detach())
                numbers |= metrics.compute()
            assert {value.dtype for value in numbers.values()} == {torch.float32}  # Lightning puts them on the device
            numbers = {name: value.item() for name, value in numbers.items()} | statistics.finish()
            logits = for_inference(copy.eval().network, torch.float32)(images).float()
            _, probabilities = answers_of_views([logits], temperature=2.0)
            numbers |= {
                f"probability {i}": float(value) for i, value in enumerate(probabilities.detach().flatten().cpu())
            }
        expected = expected or numbers
    assert numbers == pytest.approx(expected, rel=0.01)
    assert len(numbers) > 20
