import copy
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch
from datamodules.images.mixing import Mix
from datamodules.sampler import BLANK
from lightning_modules import ImageClassifier, focal_loss

CLASSES = ["1", "2", "10"]


@pytest.fixture
def batch():
    return Batch(torch.randn(6, 3, 32, 32), torch.tensor([0, 0, 0, 1, 1, 2]), torch.arange(6))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross_entropy", F.cross_entropy),
        ("focal", lambda logits, targets: focal_loss(logits, targets, gamma=1.5)),
    ],
)
def test_training_step_returns_the_chosen_loss(loss, expected, batch, monkeypatch):
    model = ImageClassifier(CLASSES, backbone="resnet18", loss=loss, focal_gamma=1.5, dropout=0.0)
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    logits = model(batch.images).detach()
    torch.testing.assert_close(model.training_step(batch, 0), expected(logits, batch.targets))


def test_weights_and_smoothing_are_in_the_training_loss_alone(batch, monkeypatch):
    model = ImageClassifier(CLASSES, backbone="resnet18", loss="cross_entropy", label_smoothing=0.3)
    model.class_weights = torch.tensor([0.5, 1.0, 2.5])
    logits = torch.randn(6, 3)
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "forward", lambda _: logits)
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    q = 0.7 * torch.eye(3)[batch.targets] + 0.1
    expected = -(model.class_weights * q * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(model.training_step(batch, 0), expected)
    torch.testing.assert_close(model.train_metrics.compute()["train/loss"], expected)
    model.validation_step(batch, 0)
    torch.testing.assert_close(model.val_metrics.compute()["val/loss"], F.cross_entropy(logits, batch.targets))


def test_class_weights_count_all_training_images(data_root, tmp_path):
    shutil.copytree(data_root, tmp_path, dirs_exist_ok=True)
    for path in list((tmp_path / "train" / "1").iterdir())[1:]:
        path.unlink()
    data = ImageFolderDataModule(str(tmp_path))
    data.setup("fit")
    model = ImageClassifier(list(data.classes.names), backbone="resnet18", weights="none", class_weights="balanced")
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(UserError, match="need the training images of an ImageFolderDataModule, got NoneType: pass"):
        model.setup("fit")
    model.trainer.datamodule = data
    names = set(model.state_dict())
    model.setup("fit")
    images = {name: 1 if name == "1" else 4 for name in data.classes.names}
    expected = [sum(images.values()) / (12 * images[name]) for name in data.classes.names]
    torch.testing.assert_close(model.class_weights, torch.tensor(expected))
    assert set(model.state_dict()) == names


def test_validation_metrics_equal_their_definition(batch, monkeypatch):
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9], [0, 9, 0]])
    model = ImageClassifier(CLASSES, backbone="resnet18", loss="cross_entropy")
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "forward", lambda _: logits)
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model.validation_step(batch, 0)
    values = {name: value.item() for name, value in model.val_metrics.compute().items()}
    assert values == pytest.approx(
        {
            "val/accuracy": 3 / 6,
            "val/accuracy_macro": (2 / 3 + 1 / 2 + 0 / 1) / 3,
            "val/accuracy_top5": 1.0,  # of 3 classes
            "val/loss": F.cross_entropy(logits, batch.targets).item(),
            "val/nll": F.cross_entropy(logits, batch.targets).item(),
            "val/ece": 1 / (1 + 2 * math.exp(-9)) - 3 / 6,  # all are as sure
        }
    )


def test_a_class_that_a_limited_validation_lacks_is_left_out_of_the_balanced_accuracy(batch, monkeypatch):
    model = ImageClassifier(CLASSES, backbone="resnet18")
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "forward", lambda _: torch.eye(3)[[0, 0, 2, 1, 2]])
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model.validation_step(Batch(*(column[:5] for column in batch[:3])), 0)  # without the image of class 2
    model.test_step(Batch(*(column[:5] for column in batch[:3])), 0)
    expected = (2 / 3 + 1 / 2) / 2
    assert model.val_metrics.compute()["val/accuracy_macro"] == pytest.approx(expected)
    assert model.test_metrics.compute()["test/accuracy_macro"] == pytest.approx(expected)


@pytest.mark.parametrize(("share", "correct"), [(0.7, 3 / 6), (0.2, 2 / 6)])
def test_a_mixed_batch_is_trained_on_both_labels_and_counts_the_heavier(share, correct, batch, monkeypatch):
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9], [0, 9, 0]])
    model = ImageClassifier(CLASSES, backbone="resnet18", loss="cross_entropy")
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(model, "forward", lambda _: logits)
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    # Own labels are 0 0 0 1 1 2, those of the images before 2 0 0 0 1 1, and predictions 0 0 1 1 2 1.
    before = torch.tensor([2, 0, 0, 0, 1, 1])
    expected = share * F.cross_entropy(logits, batch.targets) + (1 - share) * F.cross_entropy(logits, before)
    torch.testing.assert_close(model.training_step(batch._replace(mix=Mix(share)), 0), expected)
    values = model.train_metrics.compute()
    torch.testing.assert_close(values["train/loss"], expected)
    assert values["train/accuracy"] == pytest.approx(correct)


@pytest.mark.parametrize("zero", [False, True])
def test_the_option_that_begins_branches_at_zero_reaches_the_network(zero):
    model = ImageClassifier(CLASSES, backbone="resnet18", weights="none", zero_init_residual=zero)
    assert model.network.layer4[1].bn2.weight.eq(0 if zero else 1).all()


def test_a_batch_of_blanks_counts_for_nothing(batch, monkeypatch):
    model = ImageClassifier(CLASSES, backbone="resnet18")
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    model.eval()
    model.validation_step(batch, 0)
    before = model.val_metrics.compute()
    blanks = Batch(batch.images, batch.targets * 0 - 1, batch.samples * 0 + BLANK, num_blanks=6)
    model.validation_step(blanks, 1)
    assert {k: v.item() for k, v in model.val_metrics.compute().items()} == {k: v.item() for k, v in before.items()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("algorithm", "clip"), [("norm", clip_grad_norm_), ("value", clip_grad_value_)])
def test_a_fused_optimiser_has_its_gradients_clipped(precision, algorithm, clip):
    model = ImageClassifier(CLASSES, backbone="resnet18", weights="none")
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", precision=precision,
                            gradient_clip_val=0.1, gradient_clip_algorithm=algorithm)  # fmt: skip
    optimizer = model.configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"]
    expected = copy.deepcopy(list(model.parameters()))
    for parameter, other in zip(model.parameters(), expected, strict=True):
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    clip(expected, 0.1)
    model.configure_gradient_clipping(optimizer, 0.1, algorithm)
    for parameter, clipped in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, clipped.grad)


def test_hyper_parameters_are_plain_values():
    def plain(value):
        return value is None or type(value) in (str, int, float, bool) or all(type(item) is str for item in value)

    assert all(plain(value) for value in ImageClassifier(CLASSES, backbone="resnet18").hparams.values())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("learning_rate", -1.0, "--model.learning_rate must be a finite number of at least 0, got -1.0"),
        ("learning_rate", float("nan"), "--model.learning_rate must be a finite number of at least 0, got nan"),
        ("weight_decay", -1.0, "--model.weight_decay must be a finite number of at least 0, got -1.0"),
        ("restart_epochs", 0, "--model.restart_epochs must be a finite number of at least 1, got 0"),
        ("focal_gamma", float("inf"), "--model.focal_gamma must be a finite number of at least 0, got inf"),
        ("focal_gamma", 101.0, "--model.focal_gamma must be at most 100, got 101.0: usual values are 0 to 5"),
        ("weight_decay", 1000.0, "--model.weight_decay must be at most 100, got 1000.0: usual values are 1e-5 to 0.1"),
        ("label_smoothing", 1.0, "--model.label_smoothing must be at least 0 and below 1, got 1.0: 0.1 is common"),
        ("label_smoothing", float("nan"), "--model.label_smoothing must be at least 0 and below 1, got nan"),
        ("drop_path", -0.1, "--model options: drop_path must be at least 0 and below 1, got -0.1"),
        ("zero_init_residual", True, "--model.weights IMAGENET1K_V2, which .*, or --model.zero_init_residual false"),
        ("ema_decay", -0.1, "--model.ema_decay must be auto, or at least 0 and below 1, got -0.1: 0 turns it off"),
        ("ema_decay", float("nan"), "--model.ema_decay must be auto, or at least 0 and below 1, got nan"),
        ("ema_decay", float("inf"), "--model.ema_decay must be auto, or at least 0 and below 1, got inf"),
        ("spatial_kernel_size", 4, "kernel size must be odd and positive, got 4"),
        ("class_names", ["only"], "needs at least 2 classes"),
    ],
)
def test_refuses(option, value, message):
    with pytest.raises(UserError, match=message):
        ImageClassifier(**{"class_names": CLASSES, "backbone": "resnet18", option: value})
