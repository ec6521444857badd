import json
import logging
import sys

import huggingface_hub.constants
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from datamodules.files.errors import UserError
from lightning_modules import ResNetCBAM
from lightning_modules.weights.pretrained import load_pretrained
from tests.conftest import SMALL

pytestmark = pytest.mark.usefixtures("wide_resnet18")
NAME = "timm/resnet18.a1_in1k"
CLASSES = [f"class {i}" for i in range(12)]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The hub's cache in an empty folder, offline, as HF_HOME and HF_HUB_OFFLINE set them before the first import."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def snapshot(cache):
    """The folder in which the cache holds a commit of ``NAME``, whose file has timm's names: torchvision's."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{NAME.replace('/', '--')}"
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    save_file(torchvision.models.resnet18().state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def load(name=NAME, backbone="resnet18"):
    network = ResNetCBAM(12, backbone="resnet18")
    return network, load_pretrained(network, name, backbone, CLASSES)


@pytest.mark.parametrize(
    ("config", "remark"),
    [
        (IMAGENET, ""),
        (None, ", without a config.json that tells how its images were normalised"),  # timm's own cache
    ],
)
def test_loads_from_the_cache_without_its_head(config, remark, snapshot):
    if config:
        (snapshot / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": config}))
    network, said = load()
    state = {name: t for name, t in load_file(snapshot / "model.safetensors").items() if not name.startswith("fc.")}
    assert said.startswith(
        f"weights: {len(state)} tensors loaded from {NAME}{remark}; its head of 1000 classes is left out"
    )
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        (
            NAME,
            "resnet18",
            r"cannot download timm/resnet18.a1_in1k \(\w+: .*\): check the name at .*, connect to the network",
        ),
        ("timm/resnet34.a1_in1k", "resnet18", "is of resnet34, but --model.backbone is resnet18: choose the same for"),
        ("timm/resnet18", "resnet18", "lacks the tag that says how it was trained, as in timm/resnet50.a1_in1k"),
        *(
            (
                f"timm/{name}",
                "resnet50",
                f"timm/{name} is not one of timm's plain ResNets, which have the names of resnet18,",
            )
            for name in ("resnet50d.ra2_in1k", "resnet50t", "seresnet50.ra2_in1k", "resnet50_gn.a1h_in1k", "", "../w")
        ),
    ],
)
def test_refuses(name, backbone, message):
    with pytest.raises(UserError, match=message):
        load(name, backbone)


@pytest.mark.parametrize("change", [{"mean": [0.5, 0.5, 0.5]}, {"std": [0.5, 0.5, 0.5]}, {"input_size": [1, 224, 224]}])
def test_weights_for_other_images_are_refused(change, snapshot):
    (snapshot / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET | change}))
    with pytest.raises(UserError, match=r"was trained on images of [13] channels with mean .* and here they have"):
        load()


def test_the_attempts_of_a_download_are_not_logged(monkeypatch, caplog):
    client = logging.getLogger("huggingface_hub.utils._http")

    def attempt(*_):
        client.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", attempt)
    with pytest.raises(UserError, match="no network"):
        load()
    assert not caplog.records
    client.warning("of a user's own download")
    assert caplog.messages == ["of a user's own download"]


def test_a_download_is_of_weights_only_if_they_fit(snapshot, monkeypatch):
    (snapshot / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET | {"mean": [0.5, 0.5, 0.5]}}))
    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, file: asked.append(file) or str(snapshot / file))
    with pytest.raises(UserError, match="was trained on images of 3 channels"):
        load()
    assert asked == ["config.json"]
    (snapshot / "config.json").write_text(json.dumps({"pretrained_cfg": IMAGENET}))
    load()
    assert asked[1:] == ["config.json", "model.safetensors"]


def test_without_the_package_the_command_says_what_to_install(refusal, data_root, run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = refusal("fit", *SMALL, f"--data.root={data_root}", f"--model.weights={NAME}")
    assert said.endswith(f"--model.weights {NAME} needs huggingface_hub: install it with pip install huggingface_hub")
