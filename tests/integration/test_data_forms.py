"""One set of images in every form that people have it in is one data set: the same batches, weights and predictions."""

import csv
import json
import shutil
import signal
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from datamodules import ImageFolderDataModule
from scripts.main import main
from tests.conftest import SMALL, working_in
from tests.integration.fork_driver import TRAINING, drive

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the fork driver needs Linux's /proc"),
]
FIT = [*SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2", "--best.every_n_steps=1"]
LAST = "runs/default/version_0/checkpoints/last.ckpt"
SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def folders(data_root, new_folder):
    """Class folders whose files have different names everywhere, as a flat folder needs; and a template."""
    root = new_folder("forms") / "folders"
    for split in SPLITS:
        for path in (data_root / split).rglob("*.jpg"):
            target = root / split / path.parent.name / f"{split}_{path.parent.name}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copytree(data_root / "test", root / "test")
    return root


def labelled(folders):
    """Split, class and file of every image with a label, in an order that is no one's."""
    paths = sorted(
        (path for split in SPLITS for path in (folders / split).rglob("*.jpg")), key=lambda path: path.name[::-1]
    )
    return [(path.parts[-3], path.parts[-2], path) for path in paths]


def class_folders(folders, root):
    shutil.copytree(folders, root)
    return []


def labels_file(folders, root):
    """A flat folder, a CSV beside it, and images of the test that no row names."""
    shutil.copytree(folders / "test", root / "test")
    for _, _, path in labelled(folders):
        shutil.copy(path, root)
    with open(root.parent / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "label", "split"], *([path.stem, name, split] for split, name, path in labelled(folders))]
        )
    return [f"--data.labels={root.parent / 'labels.csv'}"]


def hugging_face(folders, root):
    for split, name, path in labelled(folders):
        (root / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / split)
        with open(root / split / "metadata.jsonl", "a") as file:
            file.write(json.dumps({"file_name": path.name, "label": name}) + "\n")
    shutil.copytree(folders / "test", root / "test")
    return []


def tar_shards(folders, root):
    root.mkdir()
    for number, (split, name, path) in enumerate(labelled(folders)):
        with tarfile.open(root / f"{split}-{number % 3:06d}.tar", "a") as archive:
            archive.add(path, f"{name}/{path.name}")
    with tarfile.open(root / "test.tar", "w") as archive:
        archive.add(folders / "test", "./test")
    return []


def web_dataset(folders, root):
    """Shards of images beside their class index."""
    root.mkdir()
    names = [*dict.fromkeys(name for _, name, _ in labelled(folders))]
    for number, (split, name, path) in enumerate(labelled(folders)):
        (root / "index.cls").write_text(str(names.index(name)))
        with tarfile.open(root / f"{split}-{number % 2:06d}.tar", "a") as archive:
            archive.add(path, path.name)
            archive.add(root / "index.cls", f"{path.stem}.cls")
    (root / "index.cls").unlink()
    (root.parent / "classes.txt").write_text("\n".join(names))
    shutil.copytree(folders / "test", root / "test")
    return [f"--data.class_list={root.parent / 'classes.txt'}"]


def zips(folders, root):
    root.mkdir()
    for split in (*SPLITS, "test"):
        with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
            for path in (folders / split).rglob("*.jpg"):
                archive.write(path, path.relative_to(folders))
    return []


def packed(folders, root):
    main(["pack", f"--data.root={folders}", f"--output={root}", "--shard_mb=0.02"])
    assert len([*root.glob("train-*.tar")]) > 1
    return []


FORMS = [class_folders, labels_file, hugging_face, tar_shards, web_dataset, zips, packed]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def form(request, folders, tmp_path):
    """The root and the options of one form."""
    root = tmp_path / "form" / "root"
    root.parent.mkdir()
    return [*request.param(folders, root), f"--data.root={root}"]


@pytest.fixture(scope="module")
def expected(folders, new_folder):
    """The weights of a fit from class folders, and its prediction."""
    folder = new_folder("expected")
    with working_in(folder):
        main(["fit", *FIT, f"--data.root={folders}"])
        main(["predict", f"--ckpt_path={LAST}", f"--data.root={folders}", "--data.num_workers=0"])
    return folder


def batches(options, workers):
    words = dict(option.removeprefix("--data.").split("=", 1) for option in options)
    data = ImageFolderDataModule(**words, image_size=32, batch_size=8, num_workers=workers)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    found = list(loader)
    if workers:
        loader._iterator._shutdown_workers()
    return data, found


def test_batches_weights_and_predictions_are_the_same(form, folders, expected, run_folder):
    reference, there = batches([f"--data.root={folders}"], 0)
    for workers in (0, 2):
        data, here = batches(form, workers)
        assert data.classes.names == reference.classes.names
        assert data.fingerprint == reference.fingerprint
        for a, b in zip(here, there, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    main(["fit", *FIT, *form])
    ended, wanted = (torch.load(folder / LAST, weights_only=True)["state_dict"] for folder in (Path(), expected))
    assert ended.keys() == wanted.keys()
    assert all(torch.equal(ended[name], wanted[name]) for name in wanted)
    main(["predict", f"--ckpt_path={LAST}", *form, "--data.num_workers=0"])
    assert Path("prediction.csv").read_bytes() == (expected / "prediction.csv").read_bytes()


def test_a_run_that_is_killed_inside_shards_goes_on_from_class_folders_and_back(folders, expected, run_folder):
    """The forms may change from one start to the next, as the images stay the same."""
    shards = run_folder / "shards"
    tar_shards(folders, shards)
    for root, place, workers in ((shards, 3, 2), (folders, 2, 0), (shards, None, 2)):
        words = ["fit", *FIT, f"--data.root={root}", f"--data.num_workers={workers}", "--ckpt_path=last"]
        kill = {} if place is None else {"at": [TRAINING, place], "signal": signal.SIGKILL}
        (outcome,) = drive({"args": words, **kill})
        assert outcome["code"] == (0 if place is None else -signal.SIGKILL), outcome["error"]
    ended, wanted = (torch.load(folder / LAST, weights_only=True)["state_dict"] for folder in (Path(), expected))
    assert all(torch.equal(ended[name], wanted[name]) for name in wanted)
