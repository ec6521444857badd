"""``--model.backbone resnet18`` with an eighth of its channels, so that a command in a test takes a third of the time.

Importing this module puts it in place of torchvision's in the registry from which networks are built by name; the name
is one that people give, the structure and the names of the tensors are the same. ``torchvision.models.resnet18`` itself
stays, and the fixture ``wide_resnet18`` puts it back for tests in which its numbers matter.
"""

from torch import nn
from torchvision.models import ResNet, _api
from torchvision.models.resnet import BasicBlock

WIDE = _api.BUILTIN_MODELS["resnet18"]


class _NarrowResNet(ResNet):
    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:  # the first of four calls
            self.inplanes = 8
            self.conv1 = nn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(8)
        return super()._make_layer(block, planes // 8, blocks, stride, dilate)


def narrow_resnet18(*, weights=None, progress=True, **options):
    assert weights is None
    network = _NarrowResNet(BasicBlock, [2, 2, 2, 2], **options)
    network.fc = nn.Linear(64, network.fc.out_features)
    return network


_api.BUILTIN_MODELS["resnet18"] = narrow_resnet18
