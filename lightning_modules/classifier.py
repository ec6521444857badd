"""``ImageClassifier``: network, loss, metrics and optimiser as a LightningModule."""

import inspect
import math
import shutil
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import MixedPrecision, Precision
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import GradClipAlgorithmType, rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch
from datamodules.sampler import BLANK
from lightning_modules.metrics.accuracies import BalancedAccuracy, TopKAccuracy
from lightning_modules.metrics.calibration import CalibrationError, NegativeLogLikelihood
from lightning_modules.metrics.exact_mean import ExactMean
from lightning_modules.network.attention import Gate
from lightning_modules.network.compilation import Compile, compile_in_place
from lightning_modules.network.focal_loss import focal_loss
from lightning_modules.network.inference import for_inference
from lightning_modules.network.optimization import build_optimizer, build_schedule, nearest_cycle_ends
from lightning_modules.network.resnet_cbam import Attention, AttentionPlacement, Backbone, ResNetCBAM
from lightning_modules.weights.pretrained import load_pretrained

# The number by which the best epoch is chosen: the share of all validation images that are classified right.
MONITOR = "val/accuracy"


class ImageClassifier(LightningModule):
    """A ``ResNetCBAM`` with everything that trains it.

    Args:
        class_names: The classes in the order of the network's outputs.
        backbone: A member of torchvision's ResNet family.
        weights: Where training starts: IMAGENET1K_V2 or IMAGENET1K_V1 (torchvision's), none, or a .pth or
            .safetensors file.
        attention: cbam or none.
        attention_placement: Where CBAM modules stand: after each stage, after each block, or in each block's branch.
        attention_gate: sigmoid, or identity, with which the network starts as the plain ResNet.
        reduction_ratio: Channels over hidden width of the channel gate.
        spatial_kernel_size: Side of the spatial gate's convolution.
        dropout: Probability of dropping a feature before the head.
        loss: focal or cross_entropy.
        focal_gamma: Focusing exponent of the focal loss.
        learning_rate: Of AdamW, at the start of each cycle.
        weight_decay: Of AdamW, on every parameter.
        min_learning_rate: Floor of the cosine.
        restart_epochs: Length in epochs of the first cycle, T_0.
        restart_multiplier: Each cycle is this many times as long as the one before, T_mult.
        compile: What torch.compile makes kernels of: none, the gates, or the full network.
        activation_checkpointing: Whether to compute activations twice rather than keep them, to save memory.
        tta: Test-time augmentation of predictions: none, or hflip for the mean over an image and its mirror image.

    Raises:
        UserError: A number is out of its range.
    """

    # Every trained file stores all options. A resumed fit may change only these, which say how a prediction or the same
    # step is computed:
    FREE_ON_RESUME = ("tta", "activation_checkpointing")

    def __init__(
        self,
        class_names: list[str],
        backbone: Backbone = "resnet50",
        weights: str = "IMAGENET1K_V2",
        attention: Attention = "cbam",
        attention_placement: AttentionPlacement = "stage",
        attention_gate: Gate = "sigmoid",
        reduction_ratio: int = 128,
        spatial_kernel_size: int = 3,
        dropout: float = 0.3,
        loss: Literal["focal", "cross_entropy"] = "focal",
        focal_gamma: float = 2.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        min_learning_rate: float = 1e-5,
        restart_epochs: int = 10,
        restart_multiplier: int = 2,
        compile: Compile = "none",
        activation_checkpointing: bool = False,
        tta: Literal["none", "hflip"] = "none",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        floors = {"learning_rate": 0, "min_learning_rate": 0, "weight_decay": 0, "focal_gamma": 0}
        for name, floor in {**floors, "restart_epochs": 1, "restart_multiplier": 1}.items():
            value = self.hparams[name]
            if not (value >= floor and math.isfinite(value)):
                raise UserError(f"expected a finite --model.{name} of at least {floor}, got {value}: correct it")
        if compile == "full" and activation_checkpointing:
            raise UserError(
                "expected --model.compile full or --model.activation_checkpointing true, got both, which torch cannot "
                "combine: leave one out"
            )
        self.classes = ClassIndex(class_names)
        try:
            self.network = ResNetCBAM(len(self.classes), **self.architecture)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.network.activation_checkpointing = activation_checkpointing
        self.has_weights = False  # pretrained, or a checkpoint's
        self._cudnn_flags: tuple[bool, bool] | None = None  # of training, during a validation
        self._predictor: tuple[ResNetCBAM, ...] = ()  # in a tuple, so that it is no part of the state
        # Cross-entropy is the focal loss at gamma 0: one implementation, in float32 inside autocast for both.
        self.gamma = focal_gamma if loss == "focal" else 0.0
        self.train_metrics = self._build_metrics("loss", "accuracy").clone(prefix="train/")
        self.val_metrics = self._build_metrics(
            "loss", "accuracy", "accuracy_macro", "accuracy_top5", "nll", "ece"
        ).clone(prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")

    @property
    def architecture(self) -> dict[str, Any]:
        """The keyword arguments of ``ResNetCBAM``: what a weights file must match."""
        names = inspect.signature(ResNetCBAM).parameters.keys() - {"num_classes"}
        return {name: value for name, value in self.hparams.items() if name in names}

    def _build_metrics(self, *names: str) -> MetricCollection:
        available = {
            "loss": ExactMean(),
            "accuracy": MulticlassAccuracy(len(self.classes), average="micro"),
            "accuracy_macro": BalancedAccuracy(len(self.classes)),
            "accuracy_top5": TopKAccuracy(min(5, len(self.classes))),
            "nll": NegativeLogLikelihood(),
            "ece": CalibrationError(),
        }
        return MetricCollection({name: available[name] for name in names}, compute_groups=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW and the warm-restart schedule, stepped once per epoch."""
        optimizer = build_optimizer(
            self.parameters(),
            learning_rate=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            # A fused optimiser unscales float16's gradients itself, which is too late to clip them.
            fused=not (self.trainer.gradient_clip_val and str(self.trainer.precision) == "16-mixed"),
        )
        schedule = build_schedule(
            optimizer,
            restart_epochs=self.hparams["restart_epochs"],
            restart_multiplier=self.hparams["restart_multiplier"],
            min_learning_rate=self.hparams["min_learning_rate"],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Lightning 2.6 refuses it for a fused optimiser in bfloat16 too, where no gradient is scaled.
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def setup(self, stage: str) -> None:
        """Compiles for a fit, in place, so that parameters keep their names. Shapes are fixed: batches are full.

        Loads pretrained weights too, for a fit without the command line, which has loaded them by now.

        Raises:
            UserError: There is no compiler.
        """
        if stage == "fit":
            self.load_pretrained()
        if self.trainer.strategy.root_device.type == "cuda":  # on the CPU the layout of weights makes no difference
            self.network.to(memory_format=torch.channels_last)
        what: Compile = self.hparams["compile"] if stage == "fit" else "none"
        if what != "none" and self.trainer.strategy.root_device.type == "cpu" and not shutil.which("c++"):
            raise UserError(
                f"expected a C++ compiler for --model.compile {what}, there is none: install one or leave it out"
            )
        compile_in_place(self.network, what)

    def load_pretrained(self) -> None:
        """Takes the pretrained weights, once; before a fit, as callbacks copy or tune the network at its start.

        Raises:
            UserError: As ``pretrained.load_pretrained``.
        """
        if not self.has_weights:
            settings = (self.hparams[name] for name in ("weights", "backbone", "class_names"))
            report = load_pretrained(self.network, *settings)
            rank_zero_only(print)(report)
        self.has_weights = True

    def on_fit_start(self) -> None:
        """Has the schedule start from the rate that a tuner may have found, and looks at where it ends."""
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.base_lrs = [self.hparams["learning_rate"]] * len(config.scheduler.base_lrs)
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            return
        cycle = {
            "restart_epochs": self.hparams["restart_epochs"],
            "restart_multiplier": self.hparams["restart_multiplier"],
        }
        ends = nearest_cycle_ends(epochs, **cycle)
        if epochs not in ends:
            rank_zero_warn(
                f"max_epochs {epochs} ends inside a cosine cycle, at a learning rate above its floor: "
                f"{' or '.join(map(str, ends))} epochs end on it"
            )

    @override
    def on_validation_start(self) -> None:
        # Autotuning may pick other kernels in a later `validate`, whose last digits would then differ. Deterministic,
        # because torch remembers kernels by that flag: else this would use the tuned ones, and training these.
        cudnn = torch.backends.cudnn
        self._cudnn_flags = (cudnn.benchmark, cudnn.deterministic)
        cudnn.benchmark, cudnn.deterministic = False, True

    @override
    def on_validation_end(self) -> None:
        if self._cudnn_flags:
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self._cudnn_flags
        self._cudnn_flags = None

    @override
    def teardown(self, stage: str) -> None:
        self.on_validation_end()  # which an error may have left out

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``(batch, 3, height, width)`` to logits ``(batch, classes)``."""
        return self.network(images.to(self.network.conv1.weight.dtype))  # they arrive as float32

    def _shared_step(self, batch: Batch, metrics: MetricCollection) -> tuple[Tensor, Tensor]:
        """Returns the mean loss and the logits of the whole batch."""
        output = self(batch.images)
        logits, targets = output, batch.targets
        if getattr(batch, "num_blanks", 0):  # only then, as boolean indexing syncs with a GPU
            real = batch.samples != BLANK
            logits, targets = logits[real], targets[real]
        losses = focal_loss(logits, targets, gamma=self.gamma, reduction="none")
        if len(targets):  # a process without a share has blanks only, but takes part in what all compute together
            metrics.update(preds=logits.detach(), target=targets, value=losses.detach())
        # Metric objects, not numbers, so that processes agree. In a fit, EpochLog writes them, against epochs.
        alone = self.trainer.state.fn != TrainerFn.FITTING
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, logger=alone)
        return losses.mean(), output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean loss of the batch."""
        return self._shared_step(batch, self.train_metrics)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Updates the metrics below ``val/``: loss, accuracy (micro), accuracy_macro, accuracy_top5, nll, ece.

        Returns:
            The logits ``(batch, classes)``, for callbacks.
        """
        return self._shared_step(batch, self.val_metrics)[1]

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Updates the same metrics below ``test/``."""
        self._shared_step(batch, self.test_metrics)

    def on_predict_start(self) -> None:
        """Makes a copy of the network that is faster; fit and validation agree to the last digit without one."""
        mixed = str(self.trainer.precision) == "bf16-mixed"
        self._predictor = (for_inference(self.network, torch.bfloat16 if mixed else self.network.fc.weight.dtype),)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Returns positions in the data set ``(batch,)`` and float32 class probabilities ``(batch, classes)``."""
        (network,) = self._predictor
        images = batch.images.to(network.conv1.weight.dtype)
        probabilities = network(images).float().softmax(1)
        if self.hparams["tta"] == "hflip":
            probabilities = (probabilities + network(images.flip(3)).float().softmax(1)) / 2
        return batch.samples, probabilities

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the classes' hash; their names are among the hyper-parameters."""
        checkpoint["class_digest"] = self.classes.digest
