"""Where a network looks: the factors of its spatial gates, and which places speak for a class."""

import torch
from captum.attr import LayerGradCam
from torch import Tensor

from lightning_modules.network.attention import CBAM
from lightning_modules.network.resnet_cbam import ResNetCBAM


def spatial_gates(network: ResNetCBAM, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the factors of the spatial gates of each stage.

    Args:
        network: In evaluation mode.
        images: Normalised, ``(batch, 3, height, width)``.

    Returns:
        Logits ``(batch, classes)``, and by stage ``(batch, stage height, stage width)``; of several modules in a stage
        the last one's, and none of a network without attention.
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
    """How much each place of the last stage's features speaks for a class: 0 and more.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv 1610.02391; captum's implementation.

    Args:
        network: In evaluation mode.
        images: Normalised, ``(batch, 3, height, width)``.
        targets: The class to ask about, for each image, ``(batch,)``.

    Returns:
        ``(batch, stage height, stage width)``.
    """
    maps = LayerGradCam(network, network.features).attribute(images, target=targets, relu_attributions=True)
    assert isinstance(maps, Tensor)
    return maps[:, 0].detach().float()
