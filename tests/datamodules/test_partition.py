import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.images.find import ImageFile
from datamodules.partition import Partition

REPOSITORY = Path(__file__).parents[2]


def photos(**counts):
    return {name: [ImageFile(f"{name}/{i}.jpg", "gone") for i in range(count)] for name, count in counts.items()}


def names(files):
    return {name: [image.name for image in images] for name, images in files.items()}


def by_hash(of_class, seed):
    """As ``sha256sum`` orders them."""
    return sorted(of_class, key=lambda name: hashlib.sha256(f"{seed}/train/{name}".encode()).hexdigest())


def validation(files, **options):
    return {image.name for images in Partition(**options).divide(files)[1].values() for image in images}


def test_a_part_is_held_out_as_ever():
    # printf 42/train/cat/0.jpg | sha256sum begins with 7b27, …/1 to 4 with 4980, d956, 5fe1, 8a8a; dog/0 to 4 with
    # 91b7, 910f, c83c, ac3b, 036e
    expected = {"cat/1.jpg", "cat/3.jpg", "dog/4.jpg", "dog/1.jpg"}
    assert validation(photos(cat=5, dog=5), seed=42, val_fraction=0.4) == expected
    whole = photos(a=20, b=11)
    expected = {*by_hash(names(whole)["a"], 7)[:2], *by_hash(names(whole)["b"], 7)[:1]}
    assert validation(whole, seed=7) == expected


sizes = st.dictionaries(st.sampled_from("abcde"), st.integers(5, 14), min_size=1)


@given(counts=sizes, folds=st.integers(2, 5), seed=st.integers(0, 2**32 - 1))
def test_folds_deal_the_images_by_their_hash(counts, folds, seed):
    files = photos(**counts)
    dealt = [name for of_class in sorted(files) for name in by_hash(names(files)[of_class], seed)]
    for fold in range(folds):
        train, val = Partition(seed=seed, folds=folds, fold=fold).divide(files)
        assert {name for of_class in names(val).values() for name in of_class} == set(dealt[fold::folds])
        for name, images in files.items():
            assert sorted(train[name] + val[name]) == sorted(images)
            assert train[name] == [image for image in images if image in train[name]]  # in their order
            assert len(val[name]) in (len(images) // folds, -(-len(images) // folds))


@given(counts=sizes, fractions=st.lists(st.floats(0.01, 1), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_a_smaller_part_is_in_a_larger_one(counts, fractions, seed):
    files = photos(**counts)
    parts = [names(Partition(seed=seed, fraction=fraction).take(files)) for fraction in sorted(fractions)]
    for name in files:
        for smaller, larger in itertools.pairwise(part[name] for part in parts):
            assert set(smaller) <= set(larger)
        for part, fraction in zip(parts, sorted(fractions), strict=True):
            assert set(part[name]) == set(
                by_hash(names(files)[name], seed)[: max(1, round(fraction * len(files[name])))]
            )
    assert Partition(seed=seed).take(files) == files


@st.composite
def grouped(draw):
    """Images of up to 3 classes in up to 16 groups, which may span classes."""
    groups = draw(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1), max_size=16))
    files = {}
    for number, group in enumerate(groups):
        for name, count in group.items():
            at = len(files.setdefault(name, []))
            files[name] += [ImageFile(f"{name}/{at + i}.jpg", "gone", f"g{number}") for i in range(count)]
    return files


@given(
    files=grouped(), options=st.sampled_from([{"folds": 2}, {"folds": 3}, {"val_fraction": 0.2}, {}]), data=st.data()
)
def test_groups_stay_whole_and_every_class_is_on_both_sides(files, options, data):
    parts = range(options.get("folds", 1))
    try:
        sides = [Partition(seed=3, fold=fold, group_column="object", **options).divide(files) for fold in parts]
    except UserError:  # as need not be where each class has enough groups, and each group one class
        groups = [{image.group for image in images} for images in files.values()]
        is_short = any(len(of_class) < options.get("folds", 2) for of_class in groups)
        assert not files or is_short or sum(map(len, groups)) > len(set().union(*groups))
        return
    counts = Counter(image.name for _, val in sides for images in val.values() for image in images)
    if options.get("folds"):
        assert counts == Counter(image.name for images in files.values() for image in images)
    shuffled = {name: data.draw(st.permutations(files[name])) for name in data.draw(st.permutations([*files]))}
    for fold, (train, val) in enumerate(sides):
        groups_of = [{image.group for images in side.values() for image in images} for side in (train, val)]
        assert groups_of[0].isdisjoint(groups_of[1])
        for name, images in files.items():
            assert train[name]
            assert val[name]
            assert sorted(train[name] + val[name]) == sorted(images)
        again = Partition(seed=3, fold=fold, group_column="object", **options).divide(shuffled)[1]
        assert {name: sorted(images) for name, images in again.items()} == {n: sorted(i) for n, i in val.items()}


def test_an_image_without_a_group_is_alone_and_a_pattern_comes_before_the_labels_file():
    files = {"a": [ImageFile(f"a/cow{i // 2}_{i}.jpg", "gone", "") for i in range(8)]}
    files["b"] = [image._replace(name=image.name.replace("a/", "b/"), group="x" * (i < 3)) for i, image in
                  enumerate(files["a"])]  # fmt: skip
    val = validation(files, seed=1, folds=2, group_column="object")
    assert {f"b/cow{i // 2}_{i}.jpg" in val for i in range(3)} in ({True}, {False})
    of_cow = [{f"{c}/cow{i}_{2 * i + j}.jpg" in validation(files, seed=1, folds=2, group_pattern=r"(cow\d+)_")
               for c in "ab" for j in (0, 1)} for i in range(4)]  # fmt: skip
    assert sorted(map(str, of_cow)) == ["{False}", "{False}", "{True}", "{True}"]
    whole = validation(files, seed=1, folds=2, group_pattern=r"^./cow\d+")  # the class is part of the group here
    assert all(len({f"{c}/cow{i}_{2 * i + j}.jpg" in whole for j in (0, 1)}) == 1 for c in "ab" for i in range(4))


def test_hard_links_stay_together(tmp_path):
    files = {}
    for name in "ab":
        (tmp_path / name).mkdir()
        files[name] = []
        for i in range(6):
            path = tmp_path / name / f"{i}.jpg"
            path.write_bytes(b"")
            os.link(path, path.with_name(f"twin{i}.jpg"))
            files[name] += [ImageFile(f"{name}/{n}", str(path.with_name(n)), g) for n, g in
                            ((f"{i}.jpg", f"g{i}"), (f"twin{i}.jpg", ""))]  # fmt: skip
    alone = {name: [image._replace(group="") for image in images] for name, images in files.items()}
    for given_files, options in (
        (alone, {"val_fraction": 0.3}),
        (alone, {"folds": 3}),
        (files, {"folds": 2, "group_column": "object"}),
    ):
        val = validation(given_files, seed=5, **options)
        assert val
        for name in val:
            place, _, file = name.partition("/")
            assert f"{place}/{file.removeprefix('twin') if file[0] == 't' else f'twin{file}'}" in val


def test_the_same_folds_whatever_python_hashes():
    program = (
        "from datamodules.partition import Partition; from datamodules.images.find import ImageFile\n"
        "files = {c: [ImageFile(f'{c}/{i}', '', f'{i % 7}{c * (i > 9)}') for i in range(30)] for c in 'abc'}\n"
        "print(Partition(1, folds=3, fold=1, group_column='object').divide(files)[1])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert "a/" in outputs.pop()


@pytest.mark.parametrize(
    ("counts", "options", "sentence"),
    [
        ({"cat": 1}, {}, r"class cat has too few images \(1\) to hold out 1 for validation: add images or"),
        ({"cat": 4}, {"folds": 5}, "has 4 different images, too few for one in each of 5 folds: .*, or make 4 folds"),
        ({"cat": 1}, {"folds": 5}, "too few for one in each of 5 folds: add images$"),
        ({"cat": 5}, {"group_pattern": "(dog)"}, r"group_pattern \(dog\) finds no group in 5 of 5 names \(cat/0"),
        ({"cat": 5}, {"group_pattern": r"(dog)?\d"}, "finds no group in 5 of 5 names"),
        ({"cat": 5}, {"group_pattern": "cat"}, "class cat has images of 1 group, too few for one in each of "
         "training and validation, as no group is divided: add images of other groups, or use finer groups"),
        ({"cat": 5}, {"group_column": "object"}, "group_column object, as typed or in the trained file, is a column"),
        ({"cat": 5}, {"group_pattern": r"\d", "folds": 6}, "5 groups, too few for one in each of the 6 folds, as no "
         "group is divided: add images of other groups, or use fewer folds or finer groups"),
    ],
)  # fmt: skip
def test_what_cannot_be_divided(counts, options, sentence):
    with pytest.raises(UserError, match=sentence):
        Partition(seed=1, **options).divide(photos(**counts))


def test_a_group_in_train_and_in_val_is_named():
    """Where the data set itself says what validates."""
    train, val = photos(cat=3), {"cat": [ImageFile("cat/2_b.jpg", ""), ImageFile("cat/7_b.jpg", "")]}
    Partition(seed=1).require_groups_apart(train, val)
    Partition(seed=1, group_pattern="cat/.*").require_groups_apart(train, val)
    with pytest.raises(UserError, match=r"images of one group are both in train and in val \(2\): move each"):
        Partition(seed=1, group_pattern=r"\d").require_groups_apart(train, val)


def test_the_splits_of_a_fit(data_root, tmp_path):
    """4 training and 2 validation images in each of 12 classes."""
    with pytest.raises(UserError, match=r"with 4 folds, images of train validate, but .*val is there to validate"):
        ImageFolderDataModule(str(data_root), folds=4).setup("fit")
    root = tmp_path / "root"
    shutil.copytree(data_root / "train", root / "train")

    def splits(**options):
        data = ImageFolderDataModule(str(root), **options)
        data.setup("fit")
        return {split: set(data.dataset(split).names) for split in ("train", "val")}

    folds = [splits(folds=4, fold=fold) for fold in range(4)]
    assert [len(fold["val"]) for fold in folds] == [12] * 4
    assert len(set().union(*(fold["val"] for fold in folds))) == 48
    part = splits(folds=4, fold=1, fraction=0.5)
    assert part["val"] == folds[1]["val"]
    assert part["train"] < folds[1]["train"]
    assert len(part["train"]) == 24  # round(3 · 0.5) = 2 of each class
    data = ImageFolderDataModule(str(root), folds=4, fold=1, group_pattern="")
    with pytest.raises(UserError, match=r"--data.group_pattern  finds no group in 48 of 48 names"):
        data.setup("fit")
