"""``ImageClassifier``: network, loss, metrics and optimiser as a LightningModule."""

import inspect
import shutil
from collections.abc import Callable
from typing import Any, Literal

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.backends import cudnn
from torchmetrics import MetricCollection
from typing_extensions import override

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch
from datamodules.sampler import BLANK
from lightning_modules.metrics.metric_sets import evaluation_metrics, training_metrics
from lightning_modules.model_options import require_usable_options
from lightning_modules.network.attention import Gate
from lightning_modules.network.class_weights import ClassWeighting, class_weights
from lightning_modules.network.compilation import Compile, compile_in_place
from lightning_modules.network.focal_loss import focal_loss
from lightning_modules.network.matmul_conv import use_matmul_convs
from lightning_modules.network.optimization import WeightDecayOn
from lightning_modules.network.resnet_cbam import Attention, AttentionPlacement, Backbone, ResNetCBAM
from lightning_modules.network.schedule import Schedule
from lightning_modules.predictor import NetworkPredictor, Predictor
from lightning_modules.rounded_module import RoundedModule
from lightning_modules.weights.pretrained import load_pretrained

MONITOR = "val/accuracy"  # chooses the best epoch: the share of validation images that are classified correctly


class ImageClassifier(RoundedModule):
    """A ``ResNetCBAM`` with its loss, metrics, optimiser and schedule.

    Args:
        class_names: Names of the classes, in the order of the network's outputs.
        backbone: Member of torchvision's ResNet family.
        weights: Initial weights: torchvision's IMAGENET1K_V2 or IMAGENET1K_V1, timm/NAME for timm's on the Hugging
            Face Hub (such as timm/resnet50.a1_in1k), none, or a .pth, .pt, .bin, .ckpt or .safetensors file.
        zero_init_residual: Whether each residual branch begins at zero, which helps early on; needs weights none.
        attention: Attention modules: cbam or none.
        attention_placement: Where CBAM modules go: after each stage, after each block, or inside each block's branch.
        attention_gate: Gate function: sigmoid, or identity, with which the network starts as the plain ResNet.
        reduction_ratio: Number of channels divided by the hidden width of the channel gate.
        spatial_kernel_size: Side of the spatial gate's convolution kernel.
        dropout: Probability of dropping a feature before the head.
        drop_path: Probability with which training drops the last block's residual branch for an image (stochastic
            depth); it rises linearly over the blocks up to this.
        loss: Training loss: focal or cross_entropy.
        focal_gamma: Focusing exponent of the focal loss.
        class_weights: Weights of the classes in the training loss: none, balanced for the inverse of their numbers of
            training images, or effective for that of their effective numbers (Cui et al., 2019, beta 0.999), which is
            between the two.
        label_smoothing: Share of each target that the training loss spreads evenly over all classes. Validation and
            test losses have neither smoothing nor class weights.
        learning_rate: Highest learning rate of AdamW; that of head and gates where the trunk has its own.
        trunk_learning_rate_ratio: Learning rate of the trunk divided by that of head and gates.
        layer_decay: Factor on the trunk's learning rate, applied once to layer4, twice to layer3, and so on to five
            times to the stem.
        freeze_trunk_epochs: Number of epochs at the start in which only head and gates learn.
        weight_decay: Weight decay of AdamW.
        weight_decay_on: What decays: all parameters, or matrices, which spares biases, norms and gates.
        schedule: Learning-rate schedule: warm_restarts, by epochs, or cosine, one cycle over the whole run, by steps.
        min_learning_rate: Lowest learning rate of either schedule; scaled for the trunk like learning_rate.
        restart_epochs: Length in epochs of the first cycle of warm_restarts, T_0.
        restart_multiplier: Length of each cycle of warm_restarts as a multiple of the previous one's, T_mult.
        warmup_epochs: Number of epochs at the start, or a fraction of one, in which the learning rate of the cosine
            schedule rises linearly.
        ema_decay: Decay of the moving average of the weights that is validated and exported: a number below 1, auto to
            average over a tenth of the run, or 0 for none.
        temperature: Calibration of predicted probabilities: none, or fit for a temperature that is fitted on the
            validation images after each epoch and stored with the weights.
        compile: What torch.compile compiles: none, the gates, or the full network.
        activation_checkpointing: Whether to save memory by computing activations a second time in the backward pass.
        tta: Test-time augmentation, not in validation: none, or hflip to average with the mirror image.

    Raises:
        UserError: An option is out of range, or two options exclude each other.
    """

    # Options that a resumed fit may change, because its training steps come out the same.
    FREE_ON_RESUME = ("tta", "activation_checkpointing")

    def __init__(
        self,
        class_names: list[str],
        backbone: Backbone = "resnet50",
        weights: str = "IMAGENET1K_V2",
        zero_init_residual: bool = False,
        attention: Attention = "cbam",
        attention_placement: AttentionPlacement = "stage",
        attention_gate: Gate = "sigmoid",
        reduction_ratio: int = 128,
        spatial_kernel_size: int = 3,
        dropout: float = 0.3,
        drop_path: float = 0.0,
        loss: Literal["focal", "cross_entropy"] = "focal",
        focal_gamma: float = 2.0,
        class_weights: ClassWeighting = "none",
        label_smoothing: float = 0.0,
        learning_rate: float = 1e-3,
        trunk_learning_rate_ratio: float = 1.0,
        layer_decay: float = 1.0,
        freeze_trunk_epochs: int = 0,
        weight_decay: float = 1e-4,
        weight_decay_on: WeightDecayOn = "all",
        schedule: Schedule = "warm_restarts",
        min_learning_rate: float = 1e-5,
        restart_epochs: int = 10,
        restart_multiplier: int = 2,
        warmup_epochs: float = 0.0,
        ema_decay: float | Literal["auto"] = 0.0,
        temperature: Literal["none", "fit"] = "none",
        compile: Compile = "none",
        activation_checkpointing: bool = False,
        tta: Literal["none", "hflip"] = "none",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        require_usable_options(self.hparams)
        self.classes = ClassIndex(class_names)
        self.network = self._build_network()
        self.temperature = 1.0  # what logits are divided by for predicted probabilities; metrics do without
        self.has_weights = False  # whether pretrained weights, or a checkpoint's, have been loaded
        # Cross-entropy is the focal loss at gamma 0: one implementation, in float32 inside autocast for both.
        self.gamma = focal_gamma if loss == "focal" else 0.0
        # A buffer from the start, as callbacks copy the module before setup has counted the images.
        factors = None if class_weights == "none" else torch.ones(len(self.classes))
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", factors, persistent=False)
        self.train_metrics = training_metrics(len(self.classes))
        self.val_metrics = evaluation_metrics(len(self.classes), prefix="val/")
        self.test_metrics = evaluation_metrics(len(self.classes), prefix="test/")
        self._cudnn_flags: tuple[bool, bool] | None = None  # those of training, during a validation
        # Called in each process of a prediction.
        self.make_predictor: Callable[[ImageClassifier], Predictor] = NetworkPredictor
        self.predictor: Predictor | None = None  # no module, which keeps it out of the state dict

    @property
    def architecture(self) -> dict[str, Any]:
        """The keyword arguments of ``ResNetCBAM`` that a weights file must match."""
        names = inspect.signature(ResNetCBAM).parameters.keys() - {"num_classes", "zero_init_residual"}
        return {name: value for name, value in self.hparams.items() if name in names}

    def _build_network(self) -> ResNetCBAM:
        try:
            network = ResNetCBAM(len(self.classes), **self.architecture, **self._options("zero_init_residual"))
        except ValueError as error:
            raise UserError(f"no network can be built of the --model options: {error}") from error
        network.activation_checkpointing = self.hparams["activation_checkpointing"]
        use_matmul_convs(network)
        return network

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        device = self.trainer.strategy.root_device.type
        if stage == "fit":
            self.load_pretrained()  # does nothing where the command line has loaded them
            if self.class_weights is not None:
                counts, weighting = self.count_training_images(len(self.classes)), self.hparams["class_weights"]
                self.class_weights.copy_(class_weights(counts, weighting))
        if device == "cuda":  # on the CPU the memory layout of weights makes no difference
            self.network.to(memory_format=torch.channels_last)
        what: Compile = self.hparams["compile"] if stage == "fit" else "none"
        if what != "none" and device == "cpu" and not shutil.which("c++"):
            raise UserError(f"--model.compile {what} needs a C++ compiler, and c++ was not found: install one")
        compile_in_place(self.network, what)

    def load_pretrained(self) -> None:
        """Loads the pretrained weights, once, before callbacks copy or tune the network; raises ``UserError``."""
        if not self.has_weights:
            options = self._options("weights", "backbone", "class_names")
            rank_zero_only(print)(load_pretrained(self.network, **options, architecture=self.architecture))
        self.has_weights = True

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        # Autotuning may pick different kernels in a later `validate`, whose last digits would then differ. Kernels are
        # cached by the deterministic flag, without which validation would use training's, and training these.
        self._cudnn_flags = (cudnn.benchmark, cudnn.deterministic)
        cudnn.benchmark, cudnn.deterministic = False, True

    @override
    def on_validation_end(self) -> None:
        super().on_validation_end()
        if self._cudnn_flags:
            cudnn.benchmark, cudnn.deterministic = self._cudnn_flags
        self._cudnn_flags = None

    @override
    def teardown(self, stage: str) -> None:
        self.on_validation_end()  # not called after an error
        super().teardown(stage)

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``(batch, 3, height, width)`` to logits ``(batch, classes)``."""
        return self.network(images.to(self.network.conv1.weight.dtype))  # they arrive as float32

    def _shared_step(self, batch: Batch, metrics: MetricCollection, **settings: Any) -> tuple[Tensor, Tensor]:
        """Returns the mean loss, with more settings of ``focal_loss``, and the logits of the whole batch."""
        output = self(batch.images)
        logits, targets = output, batch.targets
        if getattr(batch, "num_blanks", 0):  # only then, as boolean indexing syncs with a GPU
            real = batch.samples != BLANK
            logits, targets = logits[real], targets[real]
        mix = getattr(batch, "mix", None)  # in training only
        expected = mix.soft_targets(targets, len(self.classes)) if mix else targets
        losses = focal_loss(logits, expected, gamma=self.gamma, reduction="none", **settings)
        if mix:
            targets = mix.heavier(targets)
        if len(targets):  # a process without a share has blanks only, but still takes part in collective operations
            metrics.update(preds=logits.detach(), target=targets, value=losses.detach())
        # Logged as metric objects, so that processes agree. In a fit, EpochLog writes them, against epochs.
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, logger=not self._is_in_fit)
        return losses.mean(), output

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Only in training, so that validation losses of any two runs compare.
        settings = {"class_weights": self.class_weights, **self._options("label_smoothing")}
        return self._shared_step(batch, self.train_metrics, **settings)[0]

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the logits ``(batch, classes)``, for callbacks."""
        return self._shared_step(batch, self.val_metrics)[1]

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._shared_step(batch, self.test_metrics)

    @override
    def on_predict_start(self) -> None:
        self.predictor = self.make_predictor(self)
        processes = f", on each of {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        rank_zero_only(print)(f"predicting with {self.predictor.description}{processes}")

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns positions in the data set ``(batch,)``, and what ``answers_of_views`` returns."""
        assert self.predictor is not None
        return batch.samples, *self.predictor.answers(batch.images)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["class_digest"] = self.classes.digest
        if self.hparams["temperature"] == "fit":
            checkpoint["temperature"] = self.temperature

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.temperature = checkpoint.get("temperature", 1.0)
