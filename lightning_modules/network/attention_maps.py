"""Maps of what a network attends to: the factors of its spatial gates, and Grad-CAM."""

import torch
from captum.attr import LayerGradCam
from torch import Tensor

from lightning_modules.network.attention import CBAM
from lightning_modules.network.resnet_cbam import ResNetCBAM


def spatial_gates(network: ResNetCBAM, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs the network and records the factors of its spatial gates.

    Args:
        network: Network in evaluation mode.
        images: Normalised images ``(batch, 3, height, width)``.

    Returns:
        Logits ``(batch, classes)``, and for each stage with attention the factors of its last spatial gate ``(batch,
        stage height, stage width)``.
    """
    factors: dict[str, Tensor] = {}
    handles = []
    for stage, attention in network.attention.items():
        gate = [module for module in attention.modules() if isinstance(module, CBAM)][-1].spatial_gate

        def keep(module: object, inputs: object, output: Tensor, stage: str = stage) -> None:
            factors[stage] = output[:, 0].float()

        handles.append(gate.register_forward_hook(keep))
    try:
        with torch.no_grad():
            return network(images), factors
    finally:
        for handle in handles:
            handle.remove()


def grad_cam(network: ResNetCBAM, images: Tensor, targets: Tensor) -> Tensor:
    """Computes how much each position of the last stage's features contributes to a class.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv 1610.02391; captum's implementation.

    Args:
        network: Network in evaluation mode.
        images: Normalised images ``(batch, 3, height, width)``.
        targets: Index of the class to explain for each image ``(batch,)``.

    Returns:
        Contributions of at least 0 ``(batch, stage height, stage width)``.
    """
    maps = LayerGradCam(network, network.features).attribute(images, target=targets, relu_attributions=True)
    assert isinstance(maps, Tensor)
    return maps[:, 0].detach().float()
