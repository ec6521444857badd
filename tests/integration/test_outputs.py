"""No command writes over an input, or over a file that is not of its own making."""

import os
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from scripts.main import main
from tests.conftest import SMALL


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(words, capsys):
    """The one sentence with which a command ends that changes nothing."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("cbam100: error: "))
    return sentence


@pytest.fixture
def place(trained, data_root, run_folder):
    """A working directory with the data, a run and files of the user's."""
    shutil.copytree(data_root, "root")
    shutil.copytree(trained, "run")
    shutil.copy(next(Path("root/test").iterdir()), "ph")
    Figure().savefig("ph.png")
    Path("notes.json").write_text('{"events": []}')
    shutil.copy("root/sample_submission.csv", "root/labels.csv")
    return run_folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("explain ph --output .", "is not overwritten: move it away"),
        ("explain ph ph.png --output .", "ph.png is an input"),
        ("explain ph --output root/train/3", "lies in root/train, whose files are data"),
        ("explain ph --output root/test/maps", "lies in root/test"),
        ("predict --prediction.path root/sample_submission.csv", "root/sample_submission.csv is an input"),
        ("predict --prediction.path root/labels.csv --data.template root/labels.csv", "root/labels.csv is an input"),
        ("predict --prediction.path root/test/prediction.csv", "lies in root/test"),
        ("predict --prediction.path root/val/3/prediction.csv", "lies in root/val"),
        ("audit --json notes.json", "is not overwritten: move it away"),
        ("audit --json ph.png", "is not overwritten: move it away"),
        ("audit --json run/manifest.json", "is not overwritten: move it away"),
        ("audit --json root/train/report.json", "lies in root/train"),
        ("benchmark input --json notes.json", "is not overwritten: move it away"),
        ("benchmark input --json run/manifest.json", "is not overwritten: move it away"),
    ],
)
def test_inputs_data_and_files_of_others_stay(words, sentence, place, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr("PIL.Image.open", never)
    command, *options = words.split()
    if command != "benchmark":
        options += ["--ckpt_path=run/model.safetensors"] if command != "audit" else []
    if command != "explain":
        options += ["--data.root=root"]
    before = content(place)
    assert sentence in refused([command, *options], capsys).replace(f"{place}/", "")
    assert content(place) == before


@pytest.mark.parametrize(
    "name",
    ["prediction.csv", "prediction.zip", "prediction.csv.partial", "prediction_manifest.json", "prediction_topk.csv",
     "prediction_probabilities.npz"],
)  # fmt: skip
def test_a_prediction_is_refused_before_it_begins(name, place, monkeypatch, capsys):
    monkeypatch.setattr("PIL.Image.open", None)
    Path(name).write_text("mine")
    before = content(place)
    words = ["predict", "--ckpt_path=run/model.safetensors", "--data.root=root", "--prediction.top_k=2",
             "--prediction.probabilities=true"]  # fmt: skip
    assert f"{name} exists and is not" in refused(words, capsys)
    assert content(place) == before


def test_a_page_or_a_checkpoint_in_the_way_is_told_at_the_start(place, data_root, capsys):
    folder = Path("runs/default/version_0")
    shutil.copytree("run", folder)
    (folder / "report.html").write_text("<html>mine")
    assert "report.html exists and is not an earlier report by cbam100" in refused(["report", "--run", folder], capsys)
    resume = ["fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=3", "--model.restart_epochs=2"]
    (folder / "model.safetensors").write_bytes(b"mine, and longer than a length")
    before = content(place)
    assert "model.safetensors exists and is not an earlier model by cbam100" in refused(
        [*resume, "--ckpt_path=last"], capsys
    )
    assert content(place) == before


@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 3 ends inside a cosine cycle")
def test_own_files_are_replaced_through_links(place):
    """The second time each output is a link to the first time's file, which lies elsewhere."""
    run = Path("runs/default/version_0")
    commands = [
        ["predict", "--ckpt_path=run/model.safetensors", "--data.root=root", "--data.num_workers=0",
         "--prediction.top_k=2", "--prediction.probabilities=true"],
        ["explain", "--ckpt_path=run/model.safetensors", "root/test", "--output=maps"],
        ["audit", "--data.root=root", "--json=audit.txt", "--data.num_workers=0"],
        ["report", f"--run={run}"],
        ["fit", *SMALL, "--data.root=root", "--trainer.max_epochs=3", "--model.restart_epochs=2", "--ckpt_path=last"],
    ]  # fmt: skip
    commands[1][2] = str(next(Path("root/test").iterdir()))
    shutil.copytree("run", run)
    for words in commands[:-1]:
        with pytest.raises(SystemExit, match="0") if words[0] == "audit" else pytest.MonkeyPatch.context():
            main(words)
    Path("elsewhere").mkdir()
    outputs = [*Path().glob("prediction*"), *Path("maps").iterdir(), Path("audit.txt"), run / "report.html"]
    outputs += [run / "checkpoints/last.ckpt", run / "manifest.json"]
    assert len(outputs) == 5 + 1 + 1 + 1 + 2
    for path in outputs:
        shutil.move(path, "elsewhere")
        path.symlink_to(Path("elsewhere", path.name).absolute())
        os.utime(path, (1, 1))
    for words in commands:
        with pytest.raises(SystemExit, match="0") if words[0] == "audit" else pytest.MonkeyPatch.context():
            main(words)
    for path in outputs:
        assert path.is_symlink(), path
        assert path.stat().st_mtime > 1, path
