"""``cbam100 benchmark step``: times a training step and an inference on random images, beside plain PyTorch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules import ResNetCBAM, focal_loss
from lightning_modules.network.compilation import Compile, compile_in_place
from lightning_modules.network.inference import for_inference
from lightning_modules.network.matmul_conv import use_matmul_convs
from lightning_modules.network.optimization import build_optimizer
from lightning_modules.network.packed_conv import pack_for_cpu
from lightning_modules.network.resnet_cbam import AttentionPlacement
from scripts.benchmark.timing import alternate, rows, run_script, synchronize
from scripts.hardware import set_tf32

CLASSES = 100
PEAK_SIDE = 4096  # side of the matrices whose product measures the roofline

Work = Callable[[], None]


def benchmark_step(
    image_size: int,
    batch_size: int,
    precision: str,
    *,
    attention_placement: AttentionPlacement,
    compile: Compile,
    rounds: int,
    steps: int,
    baseline: Path | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows of the table and the other figures.

    There are three baselines: "plain" is the same network as its constructor leaves it, in float32 with torch's default
    optimiser; "without attention" has all optimisations of this project but no CBAM; and ``baseline`` is an outside
    script, whose ``step`` prints ``train_images_per_s`` and ``infer_images_per_s``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(batch_size, 3, image_size, image_size, device=device)
    targets = torch.randint(0, CLASSES, (batch_size,), device=device)

    def network(attention: Literal["cbam", "none"] = "cbam") -> ResNetCBAM:
        return ResNetCBAM(CLASSES, attention=attention, attention_placement=attention_placement).to(device)

    plain = network()
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=1e-4)
    train = {
        "train": train_step(network(), images, targets, precision, compile),
        "train, without attention": train_step(network("none"), images, targets, precision, compile),
        "train, plain": _step(plain, images, targets, plain_optimizer, nullcontext),
    }
    infer = {"infer": inference(network(), images, precision), "infer, plain": plain_inference(network(), images)}
    outside = {kind: f"{kind}, {baseline.name}" for kind in ("train", "infer")} if baseline else {}
    seconds: dict[str, list[float]] = {name: [] for name in (*train, *infer, *outside.values())}
    for turn in range(rounds):
        if baseline:
            result = run_script(baseline, "step", "--size", str(image_size), "--batch", str(batch_size))
            for kind, name in outside.items():
                seconds[name].append(batch_size / result[f"{kind}_images_per_s"])
        for contenders in (train, infer):
            for name, times in alternate(contenders, steps, warm_up=1 if turn else 2).items():
                seconds[name] += times
    peak = multiplications_per_second(device, precision)
    table = rows(batch_size, seconds)
    rate = {row["name"]: row["images_per_s"] for row in table}
    return table, {
        "device": device.type,
        "size": image_size,
        "batch": batch_size,
        "precision": precision,
        "compile": compile,
        "train_images_per_s": rate["train"],
        "infer_images_per_s": rate["infer"],
        "train_images_per_s_per_core": rate["train"] / torch.get_num_threads() if device.type == "cpu" else None,
        "train_share_of_roofline": rate["train"] * flops_per_image(network(), images, training=True) / peak,
        "infer_share_of_roofline": rate["infer"] * flops_per_image(network(), images, training=False) / peak,
        "attention_cost_of_train_step": rate["train, without attention"] / rate["train"] - 1,
        "train_gain_over_plain": rate["train"] / rate["train, plain"],
        "infer_gain_over_plain": rate["infer"] / rate["infer, plain"],
        **{f"{kind}_gain_over_baseline": rate[kind] / rate[name] for kind, name in outside.items()},
    }


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Returns the context in which Lightning runs a step."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def train_step(network: ResNetCBAM, images: Tensor, targets: Tensor, precision: str, compile: Compile) -> Work:
    """Returns a training step as ``ImageClassifier`` does it, in the layout and precision of a fit."""
    if images.device.type == "cuda":
        network.to(memory_format=torch.channels_last)
        set_tf32(precision)
        torch.backends.cudnn.benchmark = True
    use_matmul_convs(network)
    compile_in_place(network, compile)
    optimizer = build_optimizer(network.parameters(), learning_rate=1e-3, weight_decay=1e-4)
    images = images.contiguous(memory_format=torch.channels_last)
    return _step(network, images, targets, optimizer, lambda: autocast(images.device, precision))


def _step(
    network: ResNetCBAM,
    images: Tensor,
    targets: Tensor,
    optimizer: torch.optim.Optimizer,
    context: Callable[[], AbstractContextManager[Any]],
) -> Work:
    network.train()

    def work() -> None:
        optimizer.zero_grad()
        with context():
            loss = focal_loss(network(images), targets)
        loss.backward()
        optimizer.step()
        synchronize(images.device)

    return work


def inference(network: ResNetCBAM, images: Tensor, precision: str) -> Work:
    """Returns a call that classifies a batch as ``predict`` does."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    use_matmul_convs(network)
    network = for_inference(network, dtype)
    pack_for_cpu(network)
    images = images.to(dtype, memory_format=torch.channels_last)

    def work() -> None:
        with torch.inference_mode(), autocast(images.device, precision):
            network(images).argmax(1).cpu()

    return work


def plain_inference(network: ResNetCBAM, images: Tensor) -> Work:
    """Returns a call that classifies a batch in float32, as a plain PyTorch loop does."""
    network.eval()

    def work() -> None:
        with torch.no_grad():
            network(images).argmax(1).cpu()

    return work


def flops_per_image(network: ResNetCBAM, images: Tensor, training: bool) -> float:
    """Counts an image's floating-point operations in convolutions and matrix products, two per multiply-add."""
    network.train(training)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = network(images[:2])
        if training:
            logits.sum().backward()
    return counter.get_total_flops() / len(images[:2])


def multiplications_per_second(device: torch.device, precision: str) -> float:
    """Measures the roofline: floating-point operations per second of a large matrix product in this precision."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=dtype)

    def work() -> None:
        matrix @ matrix
        synchronize(device)

    return 2 * PEAK_SIDE**3 / min(alternate({"product": work}, rounds=5)["product"])
