"""Three bad files among 200: what each command does, and that none touches the data."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from scripts.demo.make_demo_data import make_demo_data
from scripts.main import main
from tests.conftest import SMALL
from tests.integration.fork_driver import drive

DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
FIT = [*SMALL, "--model.weights=none", "--trainer.max_epochs=1", "--model.restart_epochs=1", "--data.batch_size=8"]


def snapshot(root):
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture(scope="module")
def five_classes(new_folder):
    """200 training images, 3 of them bad, and 100 validation images, 3 of them bad."""
    root = new_folder("bad") / "root"
    make_demo_data(root, size=36, num_classes=5, train_images=40, val_images=20, test_images=2)
    for split in ("train", "val"):
        images = sorted((root / split / "3").iterdir())
        images[0].write_bytes(images[0].read_bytes()[: images[0].stat().st_size // 2])
        images[1].write_text("not an image")
        images[2].write_bytes(b"")
    return root


@pytest.fixture
def root(five_classes):
    """The same, and a check that nothing was changed."""
    before = snapshot(five_classes)
    yield five_classes
    assert snapshot(five_classes) == before


@pytest.fixture(scope="module")
def model(five_classes, new_folder):
    folder = new_folder("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", *FIT, f"--data.root={five_classes}", "--data.on_bad_image=skip"])
    return folder / "runs" / "default" / "version_0" / "model.safetensors"


def bad(root, split):
    return [str(path) for path in sorted((root / split / "3").iterdir())[:3]]


def fails(args, code, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    assert caught.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_names_one_within_the_first_epoch(workers, root, run_folder, capsys):
    error = fails(["fit", *FIT, f"--data.root={root}", f"--data.num_workers={workers}",
                   "--trainer.num_sanity_val_steps=0"], 2, capsys)  # fmt: skip
    assert re.search(r"cbam100: error: cannot read images of train: .*train/3/.* --data.on_bad_image", error)
    assert any(path in error for path in bad(root, "train"))
    assert not Path("runs/default/version_0/checkpoints").exists()


def test_fit_skips_and_lists(root, run_folder, capsys):
    main(["fit", *FIT, f"--data.root={root}", "--data.on_bad_image=skip"])
    output = capsys.readouterr().out
    assert "train: skipped 3 unreadable images: " in output
    assert "val: skipped 3 unreadable images: " in output
    skipped = json.loads(Path("runs/default/version_0/manifest.json").read_text())["skipped"]
    for split in ("train", "val"):
        assert sorted(skipped[split]) == bad(root, split)
        assert all(path in output for path in bad(root, split))


def test_more_than_five_percent_is_an_error_for_skip_too(root, run_folder, tmp_path, capsys):
    worse = Path(shutil.copytree(root, tmp_path / "worse"))
    for path in sorted((worse / "train" / "0").iterdir())[:10]:
        path.write_bytes(b"")
    options = ["fit", *FIT, f"--data.root={worse}", "--data.on_bad_image=skip"]
    error = fails(options, 2, capsys)  # at the batch with the eleventh
    assert re.search("more than 5% of the images in train cannot be read, 1[1-3] of 200 so far", error)


def test_a_class_without_a_readable_image_is_an_error_for_skip_too(data_root, run_folder, tmp_path, capsys):
    root = Path(shutil.copytree(data_root, tmp_path / "root"))
    for label in range(12):  # 4 of 84 are less than 5 %
        for number in range(3 if label else 0):
            image = sorted((root / "train" / str(label)).iterdir())[number]
            shutil.copy(image, image.with_stem(f"copy_{number}"))
    for path in (root / "train" / "0").iterdir():
        path.write_bytes(b"")
    options = ["fit", *FIT, f"--data.root={root}", "--data.on_bad_image=skip", "--trainer.max_epochs=3",
               "--model.restart_epochs=3"]  # fmt: skip
    assert "no image of 0 in train can be read: " in fails(options, 2, capsys)


def test_skipped_images_count_in_no_metric(model, root, run_folder, tmp_path, capsys):
    without = Path(shutil.copytree(root, tmp_path / "without"))
    for path in bad(without, "val"):
        Path(path).unlink()
    tables = []
    for folder, option in ((root, "skip"), (without, "error")):
        main(["validate", f"--ckpt_path={model}", f"--data.root={folder}", "--data.num_workers=0",
              f"--data.on_bad_image={option}"])  # fmt: skip
        tables.append(re.findall(r"val/\w+\s*│\s*[\d.e-]+", capsys.readouterr().out))
    assert len(tables[0]) == 6
    assert tables[0] == tables[1]
    error = fails(["validate", f"--ckpt_path={model}", f"--data.root={root}", "--data.num_workers=0"], 2, capsys)
    assert any(path in error for path in bad(root, "val"))


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(model, root, *options):
    return ["predict", f"--ckpt_path={model}", f"--data.root={root}", f"--data.predict_dir={root / 'train'}",
            "--data.num_workers=0", *options]  # fmt: skip


def test_predict_keeps_what_it_could_read_and_fails_with_the_list(model, root, run_folder, capsys):
    error = fails(predict(model, root), 2, capsys)
    assert "3 of 200 images cannot be read: " in error
    assert all(path in error for path in bad(root, "train"))
    assert sorted(path.name for path in Path().iterdir()) == ["prediction.csv.partial", "prediction_manifest.json"]
    readable = {path.stem for path in (root / "train").glob("*/*")} - {Path(path).stem for path in bad(root, "train")}
    partial = rows("prediction.csv.partial")
    assert len(partial) == 197
    assert {row["image_name"] for row in partial} == readable

    # With a fallback the same rows, and three more that the manifest lists
    main(
        predict(model, root, "--prediction.fallback_label=2", "--prediction.top_k=2", "--prediction.probabilities=true",
                "--prediction.min_probability=0")
    )  # fmt: skip
    assert not Path("prediction.csv.partial").exists()
    whole = rows("prediction.csv")
    assert [row for row in whole if row["image_name"] in readable] == partial
    filled = {row["image_name"] for row in whole if row["image_name"] not in readable}
    assert {row["pred_label"] for row in whole if row["image_name"] in filled} == {"2"}
    manifest = json.loads(Path("prediction_manifest.json").read_text())
    assert {row["image_name"] for row in manifest["unreadable"]} == filled
    assert (manifest["fallback_label"], manifest["complete"], len(filled)) == ("2", True, 3)
    assert {row["image_name"] for row in rows("prediction_topk.csv") if row["label_1"] == ""} == filled
    assert {row["image_name"] for row in rows("prediction_topk.csv") if row["review"] == "1"} == filled


def test_a_fallback_that_is_no_class_is_refused(model, root, run_folder, capsys):
    error = fails(predict(model, root, "--prediction.fallback_label=cat"), 2, capsys)
    assert "--prediction.fallback_label must be one of the 5 classes, but is cat: choose one of 0, 1" in error
    assert list(run_folder.iterdir()) == []


def test_test_leaves_its_data_alone(model, five_classes, run_folder, tmp_path):
    shutil.copytree(five_classes / "val", tmp_path / "labelled" / "test")
    before = snapshot(tmp_path / "labelled")
    main(["test", f"--ckpt_path={model}", f"--data.root={tmp_path / 'labelled'}", "--data.num_workers=0",
          "--data.on_bad_image=skip"])  # fmt: skip
    assert snapshot(tmp_path / "labelled") == before


@pytest.mark.processes
def test_two_processes_end_with_the_one_sentence(model, root, run_folder, capsys):
    small = [option for option in FIT if "trainer.devices" not in option and "accelerator" not in option]
    fitted, predicted = drive(
        {"args": ["fit", *small, f"--data.root={root}", "--trainer.num_sanity_val_steps=0", *DDP]},
        {"args": [*predict(model, root, "--prediction.path=two.csv"), *DDP]},
    )
    for ended in (fitted, predicted):
        assert ended["code"] == 2
        assert "Traceback" not in ended["error"]
        assert ended["error"].count("cbam100: error: ") == 1
    assert any(path in fitted["error"] for path in bad(root, "train"))
    fails(predict(model, root, "--prediction.path=one.csv"), 2, capsys)
    assert Path("two.csv.partial").read_bytes() == Path("one.csv.partial").read_bytes()


def test_audit_lists_them_and_exits_1(root, run_folder, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["audit", f"--data.root={root}", "--json=report.json"])
    assert caught.value.code == 1
    output = capsys.readouterr().out
    report = json.loads(Path("report.json").read_text())
    expected = bad(root, "train") + bad(root, "val")
    assert sorted(entry["path"] for entry in report["unreadable"]) == sorted(expected)
    assert all(path in output for path in expected)
    assert report["stops"] == ["unreadable images: 6, see --data.on_bad_image"]
