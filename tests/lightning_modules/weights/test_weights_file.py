"""Files from strangers: refused in one sentence, nothing executed, memory bounded."""

import json
import os
import pickle
import resource
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from lightning_modules.trained_model import read_trained_model


class Attack:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def plain_pickle(path, canary, trained):
    path.write_bytes(pickle.dumps(Attack(canary)))


def inside_a_checkpoint(path, canary, trained):
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**content, "hyper_parameters": Attack(canary)}, path)


def legacy_format(path, canary, trained):
    torch.save({"state_dict": Attack(canary)}, path, _use_new_zipfile_serialization=False)


def instantiator(path, canary, trained):
    """What Lightning before 2.6.6 imported and called (GHSA-qqmf-gpg7-g8gw)."""
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"] = {"_instantiator": "os.system", "_class_path": f"touch {canary}"}
    torch.save(content, path)


@pytest.mark.parametrize("attack", [plain_pickle, inside_a_checkpoint, legacy_format, instantiator])
def test_nothing_is_executed(attack, trained, tmp_path):
    canary = tmp_path / "canary"
    attack(tmp_path / "x.ckpt", canary, trained)
    with pytest.raises(UserError, match=r"(cannot load .*x\.ckpt |x\.ckpt is not a )"):
        read_trained_model(tmp_path / "x.ckpt")
    assert not canary.exists()


def cut(share):
    def spoil(path, whole):
        path.write_bytes(whole[: int(len(whole) * share)])

    return spoil


SPOILT = {
    "cut at 1 %": cut(0.01),
    "cut at 50 %": cut(0.5),
    "cut at 99 %": cut(0.99),
    "zero bytes": cut(0),
    "random": lambda path, whole: path.write_bytes(np.random.default_rng(0).bytes(10_000)),
    "zeros": lambda path, whole: path.write_bytes(bytes(10_000)),
    "header of 2^63 bytes": lambda path, whole: path.write_bytes(struct.pack("<Q", 2**63) + whole[8:]),
    "header of 90 MB": lambda path, whole: path.write_bytes(struct.pack("<Q", 90_000_000) + whole[8:]),
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_one_sentence(kind, suffix, trained, tmp_path):
    source = trained / "checkpoints" / "best.ckpt" if suffix == "ckpt" else trained / "model.safetensors"
    SPOILT[kind](tmp_path / f"x.{suffix}", source.read_bytes())
    with pytest.raises(UserError, match=rf"cannot load .*x\.{suffix} "):
        read_trained_model(tmp_path / f"x.{suffix}")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.ckpt")
    with zipfile.ZipFile(tmp_path / "x.ckpt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/1", bytes(200_000_000))
    with pytest.raises(UserError, match=r"cannot load .*x\.ckpt "):
        read_trained_model(tmp_path / "x.ckpt")


def test_a_header_that_nests_without_end_is_refused(tmp_path):
    header = {name: "[" * 100_000 for name in ("classes", "architecture", "training", "data", "class_digest")}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", header)
    with pytest.raises(UserError, match="is not a checkpoint or exported model of cbam100"):
        read_trained_model(tmp_path / "x.safetensors")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in Linux's unit")
@pytest.mark.parametrize("mutations", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutations_raise_typed_errors_only(mutations, tmp_path):
    """Of the header, where the structure is, and of the rest."""
    names = [f"class {i}" for i in range(10)]
    header = {"format": "pt", "classes": json.dumps(names), "class_digest": json.dumps(ClassIndex(names).digest)}
    header |= {"architecture": "{}", "training": "{}", "data": '{"image_size": 32, "val_fraction": 0.1, "seed": 42}'}
    path = tmp_path / "x.safetensors"
    save_file({"a.weight": torch.arange(64.0).view(8, 8), "a.bias": torch.arange(8.0)}, path, header)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)

    def mutate():
        content = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(len(content)))
            match generator.integers(4):
                case 0:
                    content[place] = int(generator.integers(256))
                case 1:
                    content[place] ^= 1 << int(generator.integers(8))
                case 2:
                    del content[place : place + int(generator.integers(1, 9))]
                case 3:
                    content[place:place] = generator.bytes(int(generator.integers(1, 9)))
        return bytes(content)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(mutations):
        path.write_bytes(mutate())
        try:
            read_trained_model(path)
        except UserError:
            refused += 1
    assert mutations / 2 < refused < mutations  # the rest hit numbers only, whose every value is a weight
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # 100 MiB
