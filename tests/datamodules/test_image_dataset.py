import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from datamodules.image_dataset import UNLABELLED, Batch, ImageDataset, collate
from datamodules.images.find import ImageFile
from datamodules.images.mixing import Mix
from datamodules.sampler import BLANK
from tests.datamodules.test_training_recipe import recipe


def grey_level(image, seed):
    return torch.tensor(np.asarray(image)[:1, :1])


@pytest.fixture
def paths(tmp_path):
    """Files whose grey level is twice their position; 2 and 5 cannot be read."""
    paths = []
    for position in range(8):
        paths.append(str(tmp_path / f"{position}.png"))
        Image.new("L", (4, 4), 2 * position).save(paths[-1])
    for position in (2, 5):
        (tmp_path / f"{position}.png").write_text("not an image")
    return paths


def images(paths):
    return [ImageFile(os.path.basename(path), path) for path in paths]


def dataset(paths, **options):
    return ImageDataset(images(paths), [10 + position for position in range(8)], grey_level, **options)


def test_an_unreadable_file_leaves_a_blank_and_its_name(paths):
    batch = collate([dataset(paths)[0, sample] for sample in (1, 2, 5, BLANK)])
    assert batch.samples.tolist() == [1, BLANK, BLANK, BLANK]
    assert batch.targets.tolist() == [11, UNLABELLED, UNLABELLED, UNLABELLED]
    assert [error.path for error in batch.unreadable] == [paths[2], paths[5]]
    assert batch.num_blanks == 3


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())  # which takes a GPU


def test_a_batch_is_one_after_it_is_pinned(paths, no_gpu):
    batch = collate([dataset(paths)[0, sample] for sample in (1, 2)])
    pinned = pin_memory(batch)
    assert isinstance(pinned, Batch)
    assert pinned.num_blanks == 1
    assert list(pinned.unreadable) == list(batch.unreadable)


def test_in_training_another_file_takes_its_place_under_its_own_label(paths):
    data = dataset(paths, replace_unreadable=True)
    taken = set()
    for epoch in range(50):
        sample = data[epoch, 2]
        position = int(sample.samples)
        assert position not in (2, 5)
        assert sample.targets == 10 + position
        assert (sample.images == 2 * position).all()
        assert sample.unreadable[0].path == paths[2]
        again = dataset(paths, replace_unreadable=True)[epoch, 2]  # a function of seed, epoch and sample
        assert again.samples == position
        taken.add(position)
    assert taken == {0, 1, 3, 4, 6, 7}


def test_where_no_file_can_be_read_a_blank_remains(paths, tmp_path):
    for path in tmp_path.iterdir():
        path.write_text("not an image")
    sample = dataset(paths, replace_unreadable=True)[0, 3]
    assert sample.samples == BLANK
    assert sample.unreadable[0].path == paths[3]


def test_the_pixel_limit_reaches_the_reader(paths):
    assert "--data.max_pixels, 14" in dataset(paths, max_pixels=14)[0, 1].unreadable[0].reason


def test_a_batch_is_mixed_as_its_first_sample_says(paths, no_gpu):
    data = ImageDataset(images(paths), range(8), recipe(mixup_alpha=1.0), seed=7)
    samples = {(epoch, sample): data[epoch, sample] for epoch in (0, 1) for sample in (0, 1, 3, 4)}
    assert len({sample.mix for sample in samples.values()}) == len(samples)  # a draw for each epoch and sample
    for key, sample in samples.items():
        assert collate([sample, samples[0, 3], samples[0, 4]]).mix == sample.mix == data[key].mix
        assert collate([sample]).mix is None
    assert ImageDataset(images(paths), range(8), recipe(mixup_alpha=1.0), seed=8)[0, 1].mix != samples[0, 1].mix
    assert dataset(paths)[0, 1].mix is None
    assert isinstance(pin_memory(collate([samples[0, 0], samples[0, 1]])).mix, Mix)
