import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from callbacks import SizeBudget
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier, ResNetCBAM, model_size_bytes
from lightning_modules.trained_model import largest_export_bytes, read_trained_model
from lightning_modules.weights.weights_file import safetensors_size
from scripts.main import main
from tests.conftest import SMALL


def test_a_limit_between_the_network_and_its_file_is_refused_before_training(
    wide_resnet18, data_root, run_folder, capsys
):
    """The header takes more than 1000 bytes: it has a line of some 80 for each of the 130 tensors."""
    limit = model_size_bytes(ResNetCBAM(12, backbone="resnet18")) + 1000
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *SMALL, f"--data.root={data_root}", f"--size_budget.limit_mb={limit / 10**6}"])
    output = capsys.readouterr()
    assert "resnet18 with these options and the header of its file takes 44.81 MB (42.73 MiB), more than" in output.err
    assert re.search(r"fp16 \(22\.4[01] MB .*\), --model.attention none \(44\.7[89] MB", output.err)  # 22 kB less
    assert "epoch 1" not in output.out
    assert not list(Path("runs").rglob("*.ckpt"))


def test_the_largest_export_is_no_smaller_and_hardly_larger_than_the_real_one(trained, data_root):
    settings = read_trained_model(trained / "model.safetensors").model
    data = ImageFolderDataModule(data_root, image_size=32)
    model = ImageClassifier(**settings)
    largest = largest_export_bytes(model, data)
    assert 0 <= largest - (trained / "model.safetensors").stat().st_size < 500
    SizeBudget(largest / 10**6).check_network(model, data)
    with pytest.raises(UserError, match=r"more than the budget of .* by 1 bytes: raise"):
        SizeBudget((largest - 1) / 10**6).check_network(model, data)
    network = model_size_bytes(model.network)
    SizeBudget(network / 10**6).check_network(model, None)  # data of another kind, and so no export


def test_a_resnet101_fits_in_16_bits():
    """The sum of what is stored: parameters and batch norm's means and variances in 2 bytes, its counters in 8."""
    widths = [64 * 2**stage for stage in range(4)]
    norms = [64] + [n for n, width in zip((3, 4, 23, 3), widths, strict=True) for n in [width, width, 4 * width] * n]
    norms += [4 * width for width in widths]  # of the shortcuts
    attention = sum(2 * 4 * width * (4 * width // 128) + 3 * 3 + 1 for width in widths)
    parameters = 44_549_160 - 1000 * 2049 + 100 * 2049 + attention  # torchvision's with another head
    size = 2 * (parameters + 2 * sum(norms)) + 8 * len(norms)
    model = ImageClassifier([f"{n:02}" for n in range(100)], "resnet101", "none")
    for precision in ("fp16", "bf16"):
        SizeBudget(size / 10**6, precision).check_network(model, None)
        with pytest.raises(UserError, match=r"resnet101 .* takes 85\.80 MB .* by 1 bytes: raise .*resnet50 \(47\."):
            SizeBudget((size - 1) / 10**6, precision).check_network(model, None)
    with pytest.raises(
        UserError, match=r"takes 171\.59 MB .* or choose one of --size_budget\.precision fp16 \(85\.80 MB"
    ):
        SizeBudget().check_network(model, None)
    with pytest.raises(UserError, match=r"or choose one of --model"):  # it would not fit either way
        SizeBudget((size - 1) / 10**6).check_network(model, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_size_of_a_file_is_the_librarys(dtype):
    names = ["Caf\u00e9", "\udce9", 'a"b', "a\\b", "\u732b"]
    for count in range(8):  # each remainder of the padding
        metadata = {"format": "pt", "classes": json.dumps(names), "note": "x" * count + "\u00e9\n\x7f\x01"}
        state = ResNetCBAM(12, backbone="resnet18").to(dtype).state_dict()
        assert safetensors_size(state, metadata) == len(safetensors.torch.save(state, metadata))
