import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.image_dataset import ImageDataset
from datamodules.images import cache as pixel_cache
from datamodules.images.cache import cache_folder, open_cache, remove_unused
from datamodules.images.find import ImageFile
from datamodules.images.read import read_image
from datamodules.images.transforms import eval_transform


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(pixel_cache, "MEMORY", tmp_path / "memory")


@pytest.fixture
def paths(tmp_path):
    """A large photo, a small one, a file that is no image, and a portrait."""
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(((300, 200), (20, 30), (0, 0), (90, 400))):
        paths.append(str(tmp_path / f"{number}.jpg"))
        if width:
            Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
        else:
            (tmp_path / f"{number}.jpg").write_text("not an image")
    return paths


def opened(paths, place="disk", **options):
    options = {"max_pixels": 10**6, "shorter_side": 64, "num_processes": 2, "what": "x"} | options
    return open_cache(place, paths, **options)


@pytest.mark.parametrize("place", ["disk", "ram"])
def test_holds_what_the_reader_reads(paths, place):
    cache = opened(paths, place)
    for copy in (cache, pickle.loads(pickle.dumps(cache))):  # as a loader process may get it
        for position in (3, 0, 1):
            image, expected = copy.read(position), read_image(paths[position], 10**6, 64)
            assert (image.mode, image.size, image.tobytes()) == ("RGB", expected.size, expected.tobytes())
        assert copy.read(2) is None


def test_is_made_once_and_anew_when_a_file_or_a_setting_changes(paths, capsys, monkeypatch):
    opened(paths)
    made = capsys.readouterr().out
    assert "4 images, about 0 MB to be made in" in made
    opened(paths)
    assert "to be made" not in capsys.readouterr().out
    opened(paths, shorter_side=32)
    assert "to be made" in capsys.readouterr().out
    Image.new("RGB", (9, 9), "red").save(paths[2], "PNG")
    assert opened(paths).read(2).getpixel((4, 4)) == (255, 0, 0)
    assert "to be made" in capsys.readouterr().out


def test_a_damaged_cache_is_made_anew(paths, capsys):
    cache = opened(paths)
    expected = cache.read(0).tobytes()
    (file,) = cache_folder("disk").glob("*.pixels")
    os.truncate(file, file.stat().st_size - 1)
    assert opened(paths).read(0).tobytes() == expected


def test_too_large_a_cache_is_refused_before_it_is_made(paths, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UserError, match="needs 0 MB and some to spare, but only 0 MB are free"):
        opened(paths)
    assert not list(cache_folder("disk").glob("*.pixels"))


def test_memory_is_given_back_when_nobody_has_it_open(paths):
    cache = opened(paths, "ram")
    folder = cache_folder("ram")
    remove_unused(folder)
    assert len(list(folder.iterdir())) == 2
    del cache
    assert not list(folder.iterdir())


def test_memory_of_a_killed_run_is_given_back_at_the_next_start(paths):
    folder = cache_folder("ram")
    folder.mkdir()
    for suffix in ("json", "pixels"):
        (folder / f"killed.{suffix}").write_text("left over")
    cache = opened(paths, "ram")
    assert [path.stem for path in folder.iterdir()].count("killed") == 0
    assert len(list(folder.iterdir())) == 2
    del cache


def after(function, then):
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        then()
        return result

    return call


def before(function, then):
    def call(*args, **kwargs):
        then()
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("there", "module", "name", "order"),
    [
        (False, pixel_cache, "write_bytes", before),  # what is made has its name, and no index
        (False, pixel_cache, "write_bytes", after),  # it is whole, and not open
        (True, json, "loads", after),  # what was there has its index read
        (True, os, "open", after),  # it is open, and not locked
    ],
)
def test_another_run_may_remove_what_is_not_yet_open(there, module, name, order, paths, monkeypatch):
    folder = cache_folder("ram")
    if there:  # left by a run that was killed
        with monkeypatch.context() as patch:
            patch.setattr(pixel_cache, "_remove_if_last", lambda *_: None)
            opened(paths, "ram", num_processes=0)
        assert len(list(folder.iterdir())) == 2
    removed = []

    def another_run():
        if not removed:
            removed.extend(folder.glob("*.pixels"))
            remove_unused(folder)
            assert not any(path.exists() for path in removed)

    monkeypatch.setattr(module, name, order(getattr(module, name), another_run))
    cache = opened(paths, "ram", num_processes=0)
    assert len(removed) == 1
    for position in (0, 1, 3):
        assert cache.read(position).tobytes() == read_image(paths[position], 10**6, 64).tobytes()
    assert len(list(folder.iterdir())) == 2


def test_a_cache_stays_until_the_last_run_that_uses_it_ends(paths):
    folder = cache_folder("ram")
    first, second = opened(paths, "ram", num_processes=0), opened(paths, "ram", num_processes=0)
    del first
    assert len(list(folder.iterdir())) == 2
    assert opened(paths, "ram", num_processes=0).file == second.file
    del second
    assert not list(folder.iterdir())


def test_a_run_does_not_remove_what_another_has_made_in_its_place(paths):
    folder = cache_folder("ram")
    first = opened(paths, "ram", num_processes=0)
    (file,) = folder.glob("*.pixels")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)  # two runs that made it at the same time
    del first
    assert file.exists()


def test_a_loader_process_gets_the_file_whatever_has_become_of_its_name(paths):
    cache = opened(paths, "ram", num_processes=0)
    pickled = pickle.dumps(cache)
    cache.file.unlink()
    cache.file.write_bytes(b"another")
    assert pickle.loads(pickled).read(0).tobytes() == read_image(paths[0], 10**6, 64).tobytes()


@pytest.mark.parametrize("place", ["disk", "ram"])
def test_an_unreadable_file_is_named_by_its_reader_again(paths, place):
    data = ImageDataset(
        [ImageFile(path, path) for path in paths],
        [0, 1, 2, 3],
        eval_transform(32),
        shorter_side=64,
        cache=opened(paths, place),
    )
    (error,) = data[0, 2].unreadable
    assert (error.path, data[0, 1].unreadable) == (paths[2], ())


@pytest.mark.parametrize("place", ["disk", "ram"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without(data_root, place, workers):
    def batches(**options):
        data = ImageFolderDataModule(data_root, image_size=32, batch_size=8, **options)
        data.setup("fit")
        return [*data.train_dataloader(), *data.val_dataloader()]

    for plain, cached in zip(batches(num_workers=0), batches(num_workers=workers, cache=place), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain[:3], cached[:3], strict=True))


def test_the_users_folder_is_no_place_for_it(data_root):
    before = sorted(data_root.rglob("*"))
    ImageFolderDataModule(data_root, image_size=32, cache="disk").setup("fit")
    assert sorted(data_root.rglob("*")) == before
