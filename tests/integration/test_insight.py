import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import IMAGES, TENSORS, EventAccumulator

from callbacks.figures.insight import batch_names
from datamodules.image_dataset import Batch
from datamodules.images.mixing import Mix
from scripts.main import main
from tests.conftest import SMALL

DRAWING = [option for option in SMALL if "insight" not in option]
FIT = [*DRAWING, "--trainer.max_epochs=2", "--model.restart_epochs=2"]
PICTURES = {"val/confusion", "val/accuracy by class", "val/worst images"}
ONCE = {"data/augmented training batch", "model/size"}


def read_events(run):
    events = EventAccumulator(str(run), size_guidance={IMAGES: 0, TENSORS: 0})
    events.Reload()
    return events


@pytest.fixture
def events(run_folder, data_root):
    main(["fit", *FIT, f"--data.root={data_root}", "--insight.every_n_epochs=1"])
    return read_events("runs/default/version_0")


def test_every_picture_is_there_in_every_epoch(events):
    assert set(events.Tags()["images"]) == PICTURES | ONCE
    for tag in PICTURES:
        assert [event.step for event in events.Images(tag)] == [0, 1]
    for tag in ONCE:
        assert [event.step for event in events.Images(tag)] == [0]
    (first, last) = events.Tensors("val/most confused/text_summary")
    assert (first.step, last.step) == (0, 1)
    assert b"| class | taken for | images |" in last.tensor_proto.string_val[0]
    scalars = set(events.Tags()["scalars"])
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        assert f"gates/{stage}/channel_std_over_images" in scalars
        assert f"gates/{stage}/spatial_std_over_positions" in scalars
        assert 0 <= events.Scalars(f"gates/{stage}/dead_hidden")[-1].value <= 1
    assert {"lr", "images_per_second", "data_wait_share", "val/nll", "val/ece"} <= scalars
    assert 0 <= events.Scalars("data_wait_share")[-1].value < 1


def test_a_mixed_batch_is_named_by_both_classes():
    batch = Batch(torch.empty(3), torch.tensor([1, 0, 2]), torch.arange(3))
    assert batch_names(batch, ["a", "b", "c"]) == ["b", "a", "c"]
    mixed = batch._replace(mix=Mix(0.7))
    assert batch_names(mixed, ["a", "b", "c"]) == ["b 0.7\n+ c 0.3", "a 0.7\n+ b 0.3", "c 0.7\n+ a 0.3"]


def test_looking_changes_nothing(run_folder, data_root):
    for name, every in (("seen", 1), ("unseen", 0)):
        main(["fit", *FIT, f"--data.root={data_root}", f"--insight.every_n_epochs={every}", f"--run_name={name}"])
    seen, unseen = (load_file(f"runs/{name}/version_0/model.safetensors") for name in ("seen", "unseen"))
    assert all(np.array_equal(seen[name], unseen[name]) for name in seen | unseen)
    assert not read_events("runs/unseen/version_0").Tags()["images"]


@pytest.mark.parametrize("length", [["--trainer.max_epochs=4"], ["--trainer.max_epochs=-1", "--trainer.max_steps=12"]])
def test_the_default_draws_the_last_epoch_and_stays_below_its_share(length, run_folder, data_root, monkeypatch):
    clock = [0.0]

    def tick():
        clock[0] += 1.0  # each look at the clock takes a second
        return clock[0]

    monkeypatch.setattr("callbacks.figures.insight.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr("callbacks.figures.insight.FIRST_GUESS", 0.0)
    main(["fit", *DRAWING, *length, "--model.restart_epochs=4", f"--data.root={data_root}"])
    drawn = [event.step for event in read_events("runs/default/version_0").Images("val/confusion")]
    assert drawn == [0, 3]  # the first, which took a second of a few; and the last


def test_a_negative_number_is_refused(run_folder, data_root, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit", *FIT, f"--data.root={data_root}", "--insight.every_n_epochs=-1"])
    assert caught.value.code == 2
    assert "--insight.every_n_epochs must be at least 0, got -1" in capsys.readouterr().err


@pytest.mark.slow  # a minute of compiling
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler for torch.compile")
def test_compiled_gates_are_not_watched(run_folder, data_root):
    main(["fit", *FIT, f"--data.root={data_root}", "--insight.every_n_epochs=1", "--model.compile=gates"])
    tags = read_events("runs/default/version_0").Tags()
    assert set(tags["images"]) >= PICTURES
    assert not [name for name in tags["scalars"] if name.startswith("gates/")]
