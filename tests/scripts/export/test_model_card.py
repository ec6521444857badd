import numpy as np

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from scripts.export.acceptance import Evaluation, Fidelity
from scripts.export.fresh_process import FileAnswers
from scripts.export.model_card import model_card


def card(root, tta, max_drop, **options):
    data = ImageFolderDataModule(str(root), image_size=32, **options)
    data.setup("validate")
    model = ImageClassifier(data.classes.names, backbone="resnet18", tta=tta)
    images = len(data.dataset("val").paths)
    targets = np.zeros(images, np.int64)
    probabilities = np.eye(len(data.classes.names), dtype=np.float32)[targets]
    checkpoint = Evaluation(targets, targets, np.ones(images), probabilities, 1.0)
    return model_card(
        model, data, checkpoint, FileAnswers(probabilities, "a runtime", 1.0),
        Fidelity.between(checkpoint, probabilities),
        files=["model.onnx"], size=1, format="onnx", precision="int8", max_drop=max_drop, licence="mit",
    )  # fmt: skip


def test_images_that_were_held_out_are_named_without_a_path(data_root, run_folder):
    """Of each of 12 classes with 4 images, half."""
    (run_folder / "secret").mkdir()
    (run_folder / "secret" / "train").symlink_to(data_root / "train")
    text = card(run_folder / "secret", "hflip", 1, val_fraction=0.5)
    assert "). 50% of each class, 24 images, were held out of the training images. Describe here" in text
    assert "secret" not in text
    assert "| two, the image and its mirror image; their probabilities are averaged |" in text
    assert "The accuracy may be at most 100 percentage points lower than the checkpoint's." in text


def test_what_does_not_hold_is_not_said(data_root):
    text = card(data_root, "none", 0.005)
    assert "held out" not in text
    assert "| views | one, the image as it is |" in text
    assert "at most 0.5 percentage points lower" in text
    assert "The best epoch was" not in text  # the checkpoint may be of another
