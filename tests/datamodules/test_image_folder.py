import contextlib
import itertools
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.images.read import ImageReadError
from datamodules.images.transforms import normalize


def batches(root, epochs=1, **options):
    data = ImageFolderDataModule(root, image_size=32, batch_size=8, **options)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        yield list(loader)
    if loader.num_workers:
        loader._iterator._shutdown_workers()  # torch takes 5 s for it when the iterator is collected


@pytest.fixture
def copy(data_root, tmp_path):
    """A data set to change."""
    return Path(shutil.copytree(data_root, tmp_path / "root"))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(data_root, workers):
    for here, there in zip(
        batches(data_root, epochs=2, num_workers=0), batches(data_root, epochs=2, num_workers=workers), strict=True
    ):
        assert len(here) == 48 // 8
        for a, b in zip(here, there, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


RECIPE = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "mix_probability": 0.7, "random_erasing": 0.5, "plain_epochs": 1,
          "progressive": "24@0.25,40@0.5,32@1", "augmentation": "trivial", "crop_scale": (0.5, 1.0)}  # fmt: skip


def run_of(root, **options):
    """The batches of a fit of four epochs, as the device gets them, by epoch."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda: None)
    data = ImageFolderDataModule(root, image_size=32, batch_size=8, **options)
    data.trainer = SimpleNamespace(
        max_epochs=4, max_steps=-1, overfit_batches=0.0, fast_dev_run=False, is_global_zero=True, global_rank=0,
        local_rank=0, world_size=1, num_devices=1, strategy=strategy, training=True, callbacks=[],
        fit_loop=SimpleNamespace(
            epoch_progress=SimpleNamespace(current=SimpleNamespace(ready=0, processed=0)),
            epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0))),
        ),
    )  # fmt: skip
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        yield [data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0) for batch in loader]
    if loader.num_workers:
        loader._iterator._shutdown_workers()  # see batches


@pytest.fixture(scope="module")
def four_epochs(data_root):
    return list(run_of(data_root, num_workers=0, **RECIPE))


def test_each_epoch_has_its_size_and_the_last_is_plain(four_epochs):
    assert [{batch.images.shape for batch in epoch} for epoch in four_epochs] == [
        {(8, 3, side, side)} for side in (24, 40, 32, 32)
    ]
    mixes = [[batch.mix for batch in epoch] for epoch in four_epochs]
    assert mixes[3] == [None] * 6
    drawn = [mix for epoch in mixes[:3] for mix in epoch]
    assert None in drawn
    assert len(set(drawn) - {None}) == sum(mix is not None for mix in drawn) >= 6  # no draw twice
    assert {bool(mix.box) for mix in drawn if mix} == {True, False}
    for batch in (batch for epoch in four_epochs for batch in epoch):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_images_are_mixed_with_the_one_before(four_epochs, data_root):
    off = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "mix_probability": 1.0}
    batches, unmixed = itertools.chain(*four_epochs), itertools.chain(*run_of(data_root, num_workers=0, **RECIPE | off))
    for batch, plain in zip(batches, unmixed, strict=True):
        expected, before = plain.images, plain.images.roll(1, 0)
        if batch.mix and batch.mix.box:
            left, top, right, bottom = batch.mix.box
            expected[..., top:bottom, left:right] = before[..., top:bottom, left:right]
        elif batch.mix:
            expected = batch.mix.share * expected + (1 - batch.mix.share) * before
        torch.testing.assert_close(batch.images, expected)


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 2, "cache": "ram"}])
def test_loader_processes_that_live_on_see_each_epochs_recipe(options, four_epochs, data_root):
    for here, there in zip(four_epochs, run_of(data_root, **RECIPE, **options), strict=True):
        for a, b in zip(here, there, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
            assert a.mix == b.mix


def test_two_processes_draw_apart(data_root):
    data = ImageFolderDataModule(data_root, image_size=32, batch_size=8, num_workers=0, mixup_alpha=1.0)
    data.setup("fit")
    mixes = []
    for rank in (0, 1):
        data._rank_and_world_size = lambda rank=rank: (rank, 2)
        mixes += [batch.mix for batch in data.train_dataloader()]
    assert len(set(mixes)) == len(mixes) == 6


@pytest.mark.parametrize("options", [{}, {"cache": "ram"}, {"augmentation": "reference"}])
@pytest.mark.parametrize("workers", [0, 1])
def test_images_arrive_channels_last_and_stay_so(workers, options, data_root):
    ((batch, *_),) = batches(data_root, num_workers=workers, **options)
    for images in (batch.images, normalize(batch.images)):
        assert images.shape == (8, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_pinned_for_a_gpu_only(device, data_root):
    data = ImageFolderDataModule(data_root, image_size=32)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(is_global_zero=True, global_rank=0, world_size=1, num_devices=1, strategy=strategy)
    data.setup("validate")
    assert data.val_dataloader().pin_memory == (device == "cuda")


def test_an_image_is_augmented_anew_in_each_epoch_and_for_each_seed(data_root):
    def by_sample(epoch):
        return {int(s): image for batch in epoch for s, image in zip(batch.samples, batch.images, strict=True)}

    first, second = (by_sample(epoch) for epoch in batches(data_root, epochs=2, num_workers=0))
    (other,) = (by_sample(epoch) for epoch in batches(data_root, num_workers=0, seed=43))
    assert first.keys() == second.keys() == other.keys()
    assert not any(
        torch.equal(first[sample], second[sample]) or torch.equal(first[sample], other[sample]) for sample in first
    )


def test_augmentation_leaves_the_main_random_stream_alone(data_root):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(batches(data_root, num_workers=0))
    assert torch.equal(torch.rand(3), expected)


def test_targets_follow_the_natural_order_of_classes(data_root):
    data = ImageFolderDataModule(data_root, image_size=32, num_workers=0)
    data.setup("validate")
    dataset = data.val_dataloader().dataset
    assert data.classes.names == tuple(str(label) for label in range(12))
    assert [int(Path(path).parent.name) for path in dataset.paths] == list(dataset.targets)


def test_without_val_a_stratified_part_is_held_out(copy):
    shutil.rmtree(copy / "val")

    def split(**options):
        data = ImageFolderDataModule(copy, val_fraction=0.25, num_workers=0, **options)
        data.setup("fit")
        return [[p.removeprefix(f"{copy}/") for p in data._datasets[name].paths] for name in ("train", "val")]

    train, val = split()
    everything = sorted(str(path.relative_to(copy)) for path in (copy / "train").glob("*/*"))
    assert sorted(train + val) == everything
    assert [path.split("/")[1] for path in val] == [str(label) for label in range(12)]  # 1 of each class's 4
    assert split() == [train, val]
    assert split(seed=1) != [train, val]


def test_an_image_is_held_out_under_all_of_its_names(copy):
    shutil.rmtree(copy / "val")
    for path in sorted((copy / "train").rglob("*.jpg")):
        os.link(path, path.with_name(f"again_{path.name}"))
    data = ImageFolderDataModule(str(copy))
    data.setup("fit")
    train, val = ({os.stat(path).st_ino for path in data.dataset(split).paths} for split in ("train", "val"))
    assert val
    assert not train & val


def test_the_split_moves_with_the_folder(copy, tmp_path):
    shutil.rmtree(copy / "val")
    elsewhere = shutil.copytree(copy, tmp_path / "elsewhere" / "data")
    names = []
    for root in (copy, elsewhere):
        data = ImageFolderDataModule(root, num_workers=0)
        data.setup("validate")
        names.append([Path(path).name for path in data._datasets["val"].paths])
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("folder", "remark"),
    [
        (None, ""),
        ("valid", "; if ROOT/valid is meant, rename it to ROOT/val"),
        ("Val", "; if ROOT/Val is meant, rename it to ROOT/val"),
        ("images/validation", "; if ROOT/images/validation is meant, rename it to ROOT/val"),
        ("archive/val2017", "; if ROOT/archive/val2017 is meant, rename it to ROOT/val"),
        ("values", ""),
        ("train/val", ""),  # a class
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_what_is_held_out_is_said_with_the_folder_that_may_be_meant(stage, folder, remark, copy, capsys):
    shutil.rmtree(copy / "val")
    if folder:
        shutil.copytree(copy / "train" / "3", copy / folder)
    data = ImageFolderDataModule(copy, val_fraction=0.25)
    data.trainer = SimpleNamespace(is_global_zero=True)
    data.setup(stage)
    number = 12 if folder != "train/val" else 13  # one of each class's 4
    assert capsys.readouterr().out == (
        f"no {copy}/val: 25% of each class, {number} images, are held out of {copy}/train for validation"
        f"{remark.replace('ROOT', str(copy))}\n"
    )


def linked_folder(source, target):
    shutil.rmtree(target, ignore_errors=True)
    target.symlink_to(os.path.relpath(source, target.parent))


def linked_class(source, target):
    if not target.exists():
        shutil.copytree(target.parent / "val", target)
    linked_folder(source / "5", target / "5")


def linked_pool(source, target):
    source.rename(source.parent / "pool")
    for folder in (source, target):
        linked_folder(source.parent / "pool", folder)


def hard_links(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)


def hard_link(source, target):
    if not target.exists():
        shutil.copytree(target.parent / "val", target)
    os.link(next((source / "5").iterdir()), target / "5" / "x.jpg")


def as_many_file_systems_in_user_space(scandir):
    """Lists no inodes."""

    class Entry:
        def __init__(self, entry):
            self.entry = entry

        def __getattr__(self, name):
            return getattr(self.entry, name)

        def inode(self):
            return 0xFFFFFFFF

    @contextlib.contextmanager
    def unnumbered(folder):
        with scandir(folder) as entries:
            yield map(Entry, entries)

    return unnumbered


@pytest.mark.parametrize(
    ("stage", "source", "target"),
    [("fit", "train", "val"), ("validate", "train", "val"), ("test", "train", "test"), ("test", "val", "test")],
)
@pytest.mark.parametrize(
    ("link", "number", "inodes"),
    [
        (linked_folder, "all", True),
        (linked_pool, "all", True),
        (linked_class, "a class", True),
        (linked_class, "a class", False),
        (hard_links, "all", True),
        (hard_link, "one", True),
    ],
)
def test_images_that_trained_or_chose_the_weights_are_not_measured(
    link, number, inodes, stage, source, target, copy, monkeypatch
):
    shutil.rmtree(copy / "test")
    link(copy / source, copy / target)
    if not inodes:
        monkeypatch.setattr(os, "scandir", as_many_file_systems_in_user_space(os.scandir))
    per_class = 4 if source == "train" else 2
    expected = {"all": 12 * per_class, "a class": per_class, "one": 1}[number]
    with pytest.raises(
        UserError, match=rf"make {target} share {expected} of its files with {source} \(.*: remove the links"
    ):
        ImageFolderDataModule(copy, class_names=[str(label) for label in range(12)]).setup(stage)


def test_links_to_different_files_are_no_mistake_whatever_the_file_system_lists(copy, tmp_path, monkeypatch):
    for split in ("train", "val"):
        shutil.copytree(copy / split / "5", tmp_path / split)
        linked_folder(tmp_path / split, copy / split / "5" / "more")
    monkeypatch.setattr(os, "scandir", as_many_file_systems_in_user_space(os.scandir))
    data = ImageFolderDataModule(copy)
    data.setup("fit")
    assert [len(data.dataset(split)) for split in ("train", "val")] == [48 + 4, 24 + 2]


def test_any_image_may_be_predicted(copy):
    (copy / "sample_submission.csv").unlink()
    linked_folder(copy / "train", copy / "test")
    data = ImageFolderDataModule(copy)
    data.setup("predict")
    assert len(data.prediction_names) == 48


def test_prediction_rows_follow_the_template(copy):
    data = ImageFolderDataModule(copy, image_size=32, num_workers=0)
    data.setup("predict")
    listed = [line.split(",")[0] for line in (copy / "sample_submission.csv").read_text().splitlines()[1:]]
    assert data.prediction_names == listed
    assert [Path(path).stem for path in data.predict_dataloader().dataset.paths] == listed


def test_another_folder_is_predicted_without_the_template(copy):
    data = ImageFolderDataModule(copy, predict_dir=str(copy / "val"), num_workers=0)
    data.setup("predict")
    paths = data.predict_dataloader().dataset.paths
    assert [path.split("/")[-2] for path in paths] == [str(label) for label in range(12) for _ in range(2)]
    assert data.prediction_names == [Path(path).stem for path in paths]


def test_expected_classes_need_no_train_folder(copy):
    shutil.rmtree(copy / "train")
    names = [str(label) for label in range(12)]
    data = ImageFolderDataModule(copy, class_names=names)
    data.setup("validate")
    data.setup("predict")
    with pytest.raises(UserError, match=r"val must have the same 13 classes as the checkpoint, but it lacks 12"):
        ImageFolderDataModule(copy, class_names=[*names, "12"])


def test_fingerprint_tells_a_changed_file(copy):
    def fingerprint():
        data = ImageFolderDataModule(copy, num_workers=0)
        data.setup("fit")
        return data.fingerprint

    before = fingerprint()
    assert (before["train"]["images"], before["val"]["images"]) == (48, 24)
    victim = next((copy / "train" / "3").iterdir())
    victim.write_bytes(victim.read_bytes() + b"x")
    after = fingerprint()
    assert before["train"] != after["train"]
    assert before["val"] == after["val"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_reaches_the_main_process_by_name(copy, workers):
    victim = next((copy / "val" / "7").iterdir())
    victim.write_text("not an image")
    data = ImageFolderDataModule(copy, image_size=32, num_workers=workers)
    data.setup("validate")
    with pytest.raises(ImageReadError, match=victim.name):  # as long as no callback takes over
        [data.on_before_batch_transfer(batch, 0) for batch in data.val_dataloader()]


def empty_class(root):
    for path in (root / "train" / "5").iterdir():
        path.unlink()


def val_is_a_dangling_link(root):
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("nowhere")


def images_folder(root):
    (root / "images").mkdir()
    (root / "train").rename(root / "images" / "train")


def only_text(root):
    empty_class(root)
    (root / "train" / "5" / "notes.txt").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"there is no folder at .* \(--data.root\): check the path"),
        (
            lambda root: shutil.rmtree(root / "train"),
            "there is no folder .*train with one subfolder for each class: create it",
        ),
        (lambda root: (root / "train").rename(root / "Train"), "for each class: rename .*/root/Train if it is meant"),
        (images_folder, "for each class: rename .*/root/images/train if it is meant, or pass another --data.root"),
        (empty_class, "every class of .*train must have an image, but there is none in 5: add images, or"),
        (
            only_text,
            r"there is none in 5, only 1 of other types \(1 .txt\): convert files to JPEG or PNG, or remove the",
        ),
        (
            lambda root: (root / "train" / "5" / "up").symlink_to(".."),
            "links make class 5 share .* of its files with the other classes of .*train",
        ),
        (
            lambda root: (root / "train" / "5" / "x.jpg").symlink_to(next((root / "val" / "5").iterdir())),
            "links make val share 1 of its files with train",
        ),
        (
            lambda root: os.link(next((root / "train" / "6").iterdir()), root / "train" / "5" / "x.jpg"),
            r"links make class 6 share 1 of its files with the other classes of .*train \(.*/train/6/",
        ),
        (
            lambda root: (root / "train" / "gone").symlink_to("nowhere"),
            "are dangling links, gone: repair or remove them",
        ),
        (val_is_a_dangling_link, "val is a dangling link"),
        (
            lambda root: shutil.copy(next((root / "val" / "5").iterdir()), root / "val" / "stray.jpg"),
            "images beside its class folders, stray.jpg: move them into their class",
        ),
        (lambda root: (root / "val" / "5").rename(root / "val" / "five"), "lacks 5 and also has five"),
    ],
)
def test_refuses(copy, spoil, message):
    spoil(copy)
    with pytest.raises(UserError, match=message):
        ImageFolderDataModule(copy).setup("fit")


@pytest.mark.parametrize(("option", "value"), [("image_size", 0), ("batch_size", -1), ("val_fraction", 1.0)])
def test_refuses_a_number_out_of_range(data_root, option, value):
    with pytest.raises(UserError, match=rf"--data.{option} must be .*, got {value}"):
        ImageFolderDataModule(data_root, **{option: value})


@pytest.mark.parametrize(("split", "stage"), [("train", "fit"), ("val", "validate"), ("test", "predict")])
def test_a_split_that_is_given_for_the_root_is_called_one(split, stage, copy, monkeypatch):
    monkeypatch.chdir(copy / split)
    for root in (copy / split, "."):
        with pytest.raises(
            UserError, match=rf"{split} looks like the split itself, so pass --data.root {copy}(, or|$)"
        ):
            ImageFolderDataModule(root, class_names=None if stage == "fit" else ["0", "1"]).setup(stage)


def test_jpegs_by_their_other_names_are_images(copy):
    for path, suffix in zip(sorted((copy / "train").rglob("*.jpg")), [".jfif", ".JPE"] * 24, strict=True):
        path.rename(path.with_suffix(suffix))
    data = ImageFolderDataModule(copy, image_size=32, batch_size=48, num_workers=0)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (48, 3, 32, 32)
    assert not batch.unreadable


def test_refuses_a_root_with_nothing_to_evaluate(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*train with one subfolder for each class"):
        ImageFolderDataModule(tmp_path, class_names=["a", "b"]).setup("validate")


@pytest.mark.parametrize(("stage", "more"), [("test", ""), ("predict", ", or pass --data.predict_dir")])
def test_a_test_folder_by_another_name_is_named(stage, more, copy):
    (copy / "test").rename(copy / "Testing")
    (copy / "Testing_notes.txt").touch()
    with pytest.raises(UserError, match=f"rename .*/root/Testing if it is meant, or pass another --data.root{more}$"):
        ImageFolderDataModule(copy).setup(stage)


def test_refuses_an_unlabelled_test_folder_to_test_on(data_root):
    data = ImageFolderDataModule(data_root)
    with pytest.raises(UserError, match="test must hold a subfolder for each"):
        data.setup("test")
