"""A torchvision ResNet with CBAM modules, dropout and one linear head."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # SyncBatchNorm too
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from lightning_modules.network.attention import CBAM, Gate

Backbone = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
Attention = Literal["cbam", "none"]
AttentionPlacement = Literal["stage", "block", "branch"]

STAGES = ("layer1", "layer2", "layer3", "layer4")
HEAD_PREFIX, ATTENTION_PREFIX = "fc.", "attention."


class ResNetCBAM(nn.Module):
    """Classifies images with a ResNet whose features are re-weighted by CBAM modules.

    Every trunk parameter keeps torchvision's name (``conv1.weight`` … ``layer4.2.bn3.bias``), so that its weight files
    load unchanged; new parameters are under ``attention.`` and ``fc.``.

    Args:
        num_classes: Width of the head.
        backbone: Member of torchvision's ResNet family.
        attention: ``cbam`` or ``none``.
        attention_placement: ``stage`` puts one module after each of the four stages, ``block`` one after every residual
            block, ``branch`` one inside every block before the addition, as in the paper.
        attention_gate: ``sigmoid``, or ``identity``, with which the network starts as the plain ResNet.
        reduction_ratio: Number of channels divided by the hidden width of the channel gate.
        spatial_kernel_size: Side of the spatial gate's convolution kernel.
        dropout: Probability of dropping a feature before the head.
        drop_path: Probability with which training drops the residual branch of the last block (stochastic depth: Huang
            et al., ECCV 2016, arXiv 1603.09382); that of block l of L is l / L times as large. Differs from the paper
            in dropping it for each image apart rather than for a whole batch, and in dividing a branch that is kept by
            the probability of that, so that evaluation needs no factor.
        zero_init_residual: Whether the last batch norm of each residual branch begins with a scale of 0, so that every
            block begins as its shortcut (Goyal et al., arXiv 1706.02677, section 5.1). For training from scratch.

    Attributes:
        activation_checkpointing: Whether training keeps only the outputs of the four stages and recomputes what is
            inside them for the gradients: less memory, for one more forward pass.

    Raises:
        ValueError: A choice is unknown or a number is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Backbone = "resnet50",
        attention: Attention = "cbam",
        attention_placement: AttentionPlacement = "stage",
        attention_gate: Gate = "sigmoid",
        reduction_ratio: int = 128,
        spatial_kernel_size: int = 3,
        dropout: float = 0.3,
        drop_path: float = 0.0,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("backbone", backbone, get_args(Backbone)),
            ("attention", attention, get_args(Attention)),
            ("attention_placement", attention_placement, get_args(AttentionPlacement)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {dropout}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be at least 0 and below 1, got {drop_path}")
        trunk = torchvision.models.get_model(backbone, weights=None, zero_init_residual=zero_init_residual)
        self.conv1, self.bn1, self.relu, self.maxpool = trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        self.attention_placement = attention_placement if attention == "cbam" else None
        self.attention = nn.ModuleDict()
        for stage in STAGES if attention == "cbam" else ():
            widths = [_out_channels(block) for block in getattr(self, stage)]
            if attention_placement == "stage":
                self.attention[stage] = CBAM(widths[-1], reduction_ratio, spatial_kernel_size, attention_gate)
            else:
                self.attention[stage] = nn.ModuleList(
                    CBAM(width, reduction_ratio, spatial_kernel_size, attention_gate) for width in widths
                )
        depths = [len(getattr(self, stage)) for stage in STAGES]
        rates = [drop_path * block / sum(depths) for block in range(1, sum(depths) + 1)]
        self.drop_rates = {stage: rates[sum(depths[:i]) :][: depths[i]] for i, stage in enumerate(STAGES)}
        self.features = nn.Identity()  # a place for hooks on the last stage's output, with or without attention
        self.activation_checkpointing = False
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(trunk.fc.in_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``(batch, 3, height, width)`` to logits ``(batch, num_classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in STAGES:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                contexts = functools.partial(_first_and_second_pass, getattr(self, stage))
                x = checkpoint(self._forward_stage, stage, x, use_reentrant=False, context_fn=contexts)
            else:
                x = self._forward_stage(stage, x)
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16, logits of similar classes would tie
            x = self.features(x.to(self.fc.weight.dtype))
            return self.fc(self.dropout(x.mean((2, 3))))

    def _forward_stage(self, stage: str, x: Tensor) -> Tensor:
        blocks: nn.Sequential = getattr(self, stage)
        rates = self.drop_rates[stage] if self.training else [0.0] * len(blocks)
        if self.attention_placement in ("block", "branch"):
            for block, rate, attend in zip(blocks, rates, self.attention[stage].children(), strict=True):
                if self.attention_placement == "block":
                    x = attend(_forward_block(block, x, rate))
                else:
                    x = _forward_block(block, x, rate, attend)
            return x
        if any(rates):
            for block, rate in zip(blocks, rates, strict=True):
                x = _forward_block(block, x, rate)
        else:
            x = blocks(x)
        return x if self.attention_placement is None else self.attention[stage](x)


def _first_and_second_pass(stage: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(stage)


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Keeps batch norm's running statistics from counting a recomputed batch twice."""
    kept = [(m, m.momentum, m.num_batches_tracked) for m in stage.modules() if isinstance(m, _BatchNorm)]
    for norm, _, _ in kept:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, counter in kept:
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _out_channels(block: Any) -> int:
    return (block.bn3 if isinstance(block, Bottleneck) else block.bn2).num_features


def _forward_block(block: Any, x: Tensor, drop_rate: float, attend: nn.Module | None = None) -> Tensor:
    """Runs a block, with attention and stochastic depth before its addition, where a hook cannot reach."""
    if attend is None and not drop_rate:
        return block(x)
    shortcut = x if block.downsample is None else block.downsample(x)
    branch = _residual_branch(block, x)
    if attend is not None:
        branch = attend(branch)
    if not drop_rate:
        return torch.relu(branch + shortcut)
    # Not torchvision's stochastic_depth, which takes a pass of its own and rounds the factor to bfloat16.
    kept = branch.new_empty(len(x), 1, 1, 1).bernoulli_(1 - drop_rate)
    return torch.relu(torch.addcmul(shortcut, branch, kept, value=1 / (1 - drop_rate)))


def _residual_branch(block: Any, x: Tensor) -> Tensor:
    """Computes what torchvision's block does before its addition."""
    x = block.relu(block.bn1(block.conv1(x)))
    if isinstance(block, Bottleneck):
        x = block.relu(block.bn2(block.conv2(x)))
        return block.bn3(block.conv3(x))
    return block.bn2(block.conv2(x))
