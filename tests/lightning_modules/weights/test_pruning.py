import torch
from torch import nn
from torch.nn.utils import prune

from lightning_modules.weights.pruning import without_masks


def test_masks_are_applied_as_torch_applies_them():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    plain = without_masks(module.state_dict())
    assert plain.keys() == module.state_dict().keys()
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    prune.l1_unstructured(module[2], "bias", amount=1)
    came = without_masks(module.state_dict())
    prune.remove(module[0], "weight")
    prune.remove(module[2], "bias")
    expected = module.state_dict()
    assert came.keys() == expected.keys() == plain.keys()
    assert all(torch.equal(came[name], expected[name]) for name in expected)
    assert (came["0.weight"] == 0).sum() == 10  # half of 5 × 4
