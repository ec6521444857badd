import dataclasses
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import BatchSizeFinder
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from datamodules.files.errors import UserError
from datamodules.images.transforms import train_transform
from datamodules.training_recipe import TrainingRecipe
from tests.datamodules.images.test_transforms import photo

OFF = TrainingRecipe(32, "fused", (0.8, 1.0), 0.0, 0.0, 0.0, 1.0, 0, None)
PROGRESSIVE = {"progressive": "16@0.5,48@0.8,32@1"}
MIXED = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "random_erasing": 0.5}


def recipe(**options):
    return dataclasses.replace(OFF, **options)


def trainer(max_epochs=10, **options):
    options = {"max_steps": -1, "overfit_batches": 0.0, "fast_dev_run": False, "callbacks": []} | options
    return SimpleNamespace(max_epochs=max_epochs, **options)


def torchvisions(steps, seed, image):
    """What torchvision's own classes make of an image, from a fresh stream."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return v2.Compose(steps)(image)


def test_the_default_is_the_reference_in_every_epoch():
    image = photo(60, 50)
    for epoch in (0, 7, 10**6):
        for each in (OFF, OFF.for_run(trainer())):
            assert torch.equal(each.transform(epoch)(image, 5), train_transform(32)(image, 5))
            assert each.draw_mix(epoch, 5) is None
    assert OFF.needs_length == []
    assert OFF.side_to_load == 36  # 1.14 · 32 = 36.48


@pytest.mark.parametrize("scale", [(0.8, 1.0), (0.2, 0.5)])
def test_trivial_is_torchvisions(scale):
    image = photo(60, 50)
    steps = [v2.RandomResizedCrop(32, scale=scale), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()]
    for seed in range(60):  # each of 14 kinds
        made = recipe(augmentation="trivial", crop_scale=scale).transform(0)(image, seed)
        assert torch.equal(made.permute(2, 0, 1), pil_to_tensor(torchvisions(steps, seed, image)))


@pytest.mark.parametrize("augmentation", ["reference", "trivial"])
def test_erasing_is_torchvisions_and_is_drawn_last(augmentation):
    image = photo(60, 50)
    crop = v2.RandomResizedCrop(32, scale=(0.8, 1.0))
    steps = {
        "trivial": [crop, v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()],
        "reference": [
            crop,
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
            v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1)),
        ],
    }[augmentation]
    erase = v2.RandomErasing(0.5, value=[124, 116, 104])  # 255 · (0.485, 0.456, 0.406), rounded
    number = 0
    for seed in range(30):
        made = recipe(augmentation=augmentation, random_erasing=0.5).transform(0)(image, seed)
        assert torch.equal(made.permute(2, 0, 1), torchvisions([*steps, v2.PILToTensor(), erase], seed, image))
        before = recipe(augmentation=augmentation).transform(0)(image, seed)
        changed = (made != before).any(2)
        assert (made[changed] == torch.tensor([124, 116, 104])).all()
        number += bool(changed.any())
    assert 5 <= number <= 25  # of 30 with probability 0.5: further off once in 3,000 choices of the seeds


def test_sizes_by_share_of_the_epochs():
    run = recipe(**PROGRESSIVE).for_run(trainer(10))
    sizes = [16] * 5 + [48] * 3 + [32] * 2
    assert [run.size(epoch) for epoch in range(10)] == sizes
    assert [run.transform(epoch)(photo(60, 50), 1).shape[0] for epoch in range(10)] == sizes
    assert run.size(10) == 32  # an epoch that weight averaging adds
    assert run.side_to_load == 54  # 1.14 · 48 = 54.72
    boxes = [run_mix.box for epoch in range(5) if (run_mix := recipe(**PROGRESSIVE, cutmix_alpha=1.0)
             .for_run(trainer(10)).draw_mix(epoch, 3))]  # fmt: skip
    assert max(max(box) for box in boxes) <= 16


@pytest.mark.parametrize(("share", "epochs", "first"), [("0.29", 100, 29), ("0.5", 5, 2), (".999", 1000, 999)])
def test_a_share_of_the_epochs_is_exact_and_rounded_down(share, epochs, first):
    assert 0.29 * 100 < 29  # in binary
    run = recipe(progressive=f"16@{share}, 32@1.0").for_run(trainer(epochs))
    assert [run.size(epoch) for epoch in range(epochs)] == [16] * first + [32] * (epochs - first)


def test_the_last_epochs_are_plain():
    run = recipe(**MIXED, plain_epochs=3).for_run(trainer(10))
    image = photo(60, 50)
    without = train_transform(32)
    for epoch in range(11):
        mixes = [run.draw_mix(epoch, seed) for seed in range(10)]
        erased = sum(not torch.equal(run.transform(epoch)(image, seed), without(image, seed)) for seed in range(20))
        if epoch < 7:
            assert None not in mixes
            assert erased > 0
        else:
            assert mixes == [None] * 10
            assert erased == 0


def test_without_a_length_there_is_one_size_and_nothing_is_plain():
    given = recipe(**MIXED, **PROGRESSIVE, plain_epochs=3)
    for unknown in (given, given.for_run(trainer(1, max_steps=1, fast_dev_run=True))):
        assert unknown.size(0) == unknown.size(99) == 32
        assert unknown.draw_mix(99, 0)


def test_what_needs_the_length_is_listed_as_typed():
    assert recipe(**MIXED, **PROGRESSIVE, plain_epochs=3).needs_length == [
        "--data.progressive 16@0.5,48@0.8,32@1", "--data.plain_epochs 3",
    ]  # fmt: skip


def test_a_loader_process_may_be_sent_it():
    run = recipe(**MIXED, **PROGRESSIVE).for_run(trainer(10))
    copy = pickle.loads(pickle.dumps(run))
    assert copy == run
    assert [copy.size(epoch) for epoch in range(10)] == [run.size(epoch) for epoch in range(10)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crop_scale": (0.0, 1.0)}, "--data.crop_scale must be the smallest and .* got [0.0, 1.0]: write it like"),
        ({"crop_scale": (0.9, 0.5)}, "got [0.9, 0.5]"),
        ({"crop_scale": (0.5, 1.5)}, "got [0.5, 1.5]"),
        ({"crop_scale": (float("nan"), 1.0)}, "got [nan, 1.0]"),
        ({"random_erasing": -0.1}, "--data.random_erasing must be between 0 and 1, got -0.1: 0 turns it off"),
        ({"random_erasing": float("nan")}, "got nan"),
        ({"mix_probability": 1.5}, "--data.mix_probability must be between 0 and 1, got 1.5: 1 mixes every batch"),
        ({"mixup_alpha": -1.0}, "--data.mixup_alpha must be between 0 and 100, got -1.0: 0 turns it off"),
        ({"cutmix_alpha": float("inf")}, "--data.cutmix_alpha must be between 0 and 100, got inf"),
        ({"mixup_alpha": float("nan")}, "--data.mixup_alpha must be between 0 and 100, got nan"),
        ({"mix_probability": 0.5}, "--data.mix_probability 0.5 has no effect, as nothing is mixed"),
        ({"plain_epochs": -1}, "--data.plain_epochs must be at least 0, got -1"),
        ({"plain_epochs": 2}, "--data.plain_epochs 2 has no effect, as no epoch has erasing or mixing"),
        ({"progressive": ""}, "got an empty text: write it like 128@0.5"),
        ({"progressive": "16@0.5,48@1"}, "must end with the size of validation's images, --data.image_size 32"),
        ({"progressive": "16@0.5,32@0.9"}, "must rise from above 0 to 1, got 16@0.5,32@0.9"),
        ({"progressive": "16@0.5,24@0.5,32@1"}, "must rise from above 0 to 1"),
        ({"progressive": "16@0.8,24@0.5,32@1"}, "must rise from above 0 to 1"),
        ({"progressive": "16@0,32@1"}, "must rise from above 0 to 1"),
        ({"progressive": "16@0.5,32@1.2"}, "must rise from above 0 to 1"),
        *[
            ({"progressive": text}, "--data.progressive must list sizes in pixels")
            for text in ("", "32", "x@0.5,32@1", "0@0.5,32@1", "-8@0.5,32@1", "16@nan,32@1", "16@0.5,,32@1", "9" * 5000)
        ],
    ],
)
def test_refuses(options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence).replace(r"\ \.\*\ ", " .* ")):
        recipe(**options)


@pytest.mark.parametrize(
    ("options", "length", "sentence"),
    [
        (PROGRESSIVE, {"max_epochs": -1}, "--data.progressive 16@0.5,48@0.8,32@1 needs a run whose length is known"),
        (PROGRESSIVE, {"max_epochs": None}, "needs a run whose length is known in epochs: give --trainer.max_epochs"),
        (PROGRESSIVE, {"max_steps": 100}, "and leave --trainer.max_steps out"),
        (PROGRESSIVE, {"overfit_batches": 1.0}, "cannot be combined with --trainer.overfit_batches"),
        (PROGRESSIVE, {"callbacks": [BatchSizeFinder()]}, "BatchSizeFinder looks at the first epoch only"),
        (PROGRESSIVE, {"max_epochs": 2}, "leaves no epoch for 48 pixels in a run of --trainer.max_epochs 2"),
        (MIXED | {"plain_epochs": 10}, {}, "--data.plain_epochs 10 leaves no other epoch in a run of"),
        (MIXED | {"plain_epochs": 2}, {"max_epochs": -1}, "--data.plain_epochs 2 needs a run"),
    ],
)
def test_refuses_a_run_that_it_does_not_fit(options, length, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        recipe(**options).for_run(trainer(**length))
