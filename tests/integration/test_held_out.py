"""A model is measured on the images that its fit held out, or says that they are others."""

import shutil
from pathlib import Path

import pytest
import torch

from datamodules import ImageFolderDataModule
from scripts.main import main
from tests.conftest import SMALL

FIT = ["fit", *SMALL, "--trainer.max_epochs=1", "--model.restart_epochs=1", "--data.batch_size=8"]
RUN = Path("runs/default/version_0")
FILES = [RUN / "checkpoints" / "last.ckpt", RUN / "model.safetensors"]


@pytest.fixture
def root(data_root, run_folder):
    return Path(shutil.copytree(data_root / "train", run_folder / "photos"))


@pytest.mark.parametrize(
    ("options", "is_refused"),
    [(["--data.folds=2", "--data.fold=1"], True), (["--data.group_pattern=/(.*)"], True), ([], False)],
)
def test_images_that_may_have_trained_are_not_measured_in_silence(options, is_refused, root, refusal, capsys):
    main([*FIT, f"--data.root={root}", *options])
    validate = [["validate", f"--ckpt_path={file}", f"--data.root={root}", "--data.num_workers=0"] for file in FILES]
    for words in validate:
        main(words)  # the same images
    assert "have trained" not in capsys.readouterr().out
    one = sorted((root / "0").iterdir())[0]
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"):  # some of which are held out now
        shutil.copy(one, root / "0" / name)
    for words in validate:
        if is_refused:
            assert "are not those that the fit held out" in refusal(*words)
        else:
            main(words)
            assert "so that some have trained: restore them, or add a val; the accuracy" in capsys.readouterr().out


def test_another_fold_than_that_of_the_fit_is_refused(root, refusal):
    main([*FIT, f"--data.root={root}", "--data.folds=2"])
    error = refusal("validate", f"--ckpt_path={FILES[1]}", f"--data.root={root}", "--data.fold=1")
    assert "are not those that the fit held out" in error


def test_paths_of_a_notebook_leave_a_checkpoint_that_can_be_read(root, tmp_path):
    (tmp_path / "classes.txt").write_text("0")
    data = ImageFolderDataModule(root, class_list=tmp_path / "classes.txt", predict_dir=root, template=root)
    torch.save(dict(data.hparams), tmp_path / "hparams.pt")
    assert torch.load(tmp_path / "hparams.pt", weights_only=True)["predict_dir"] == str(root)
