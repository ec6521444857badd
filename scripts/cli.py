"""fit, validate, test and predict: LightningCLI with this project's model, data, callbacks and defaults."""

import importlib
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar, StochasticWeightAveraging
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only

from callbacks import (
    BadImages,
    BestWeights,
    CheckpointFile,
    EpochLog,
    ExactResume,
    FiniteLoss,
    Insight,
    Interruption,
    PeakMemory,
    PredictionWriter,
    RunConfig,
    RunManifest,
    SameStart,
    SizeBudget,
    Stopping,
)
from callbacks.run.config import plain_settings
from callbacks.run.exact_resume import TUNERS, require_same_options, saved_recipe, tuned_batch_size
from callbacks.run.progress import ProgressLine
from callbacks.run.recipe import TRAINING_CALLBACKS
from callbacks.run.run_folder import RUNS, RunFolder
from callbacks.trainer_parts import callbacks_of
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier
from lightning_modules.trained_model import TrainedModel, read_trained_model
from lightning_modules.weights.weights_file import SAFETENSORS_SUFFIX
from scripts.config_files import require_config_files
from scripts.hardware import default_precision, set_tf32, share_cpus
from scripts.help_screen import show_help
from scripts.parser import Parser
from scripts.run_logger import open_logger, require_run_name
from scripts.trainer_options import require_usable, require_usable_trainer

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "default.yaml"
EPILOG = "Beforehand: cbam100 audit --data.root DIR looks at every file of a data set."


def require_seed(seed: int) -> None:
    """Raises ``UserError`` where it is no number; Lightning's true and false would be one seed here, another there."""
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"expected --seed_everything from 0 to 2^32 - 1, got {seed}: choose another")


class ClassifierCLI(LightningCLI):
    """``fit`` starts from ``configs/default.yaml``; the other subcommands from what the checkpoint says of itself."""

    trained: TrainedModel | None = None

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            ImageClassifier,
            ImageFolderDataModule,
            args=args,
            save_config_callback=None,  # RunConfig writes the file
            seed_everything_default=42,
            parser_class=Parser,
            parser_kwargs={"prog": "cbam100", "epilog": EPILOG, "fit": {"default_config_files": [str(DEFAULT_CONFIG)]}},
            trainer_defaults={
                "use_distributed_sampler": False,  # the data module's samplers know rank and world size
                "enable_model_summary": False,  # SizeBudget prints sizes in bytes, with buffers
                "log_every_n_steps": 0,  # EpochLog logs epochs
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # hyper-parameters are plain already, no import path belongs among them
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the callbacks' groups and the links."""
        parser.add_argument(
            "--run_name", type=str | None, default=None,
            help="Name of the folder below runs/; by default the last --config file's stem, or default.",
        )  # fmt: skip
        parser.add_lightning_class_args(SizeBudget, "size_budget")
        parser.add_lightning_class_args(BestWeights, "best")
        parser.add_lightning_class_args(PredictionWriter, "prediction")
        parser.add_lightning_class_args(Insight, "insight")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("data", "model.class_names", lambda data: list(data.classes.names), "instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses twice where there is a checkpoint: to find it, and then over its settings, so that a flag wins."""
        words = sys.argv[1:] if args is None else args
        show_help(self._parser, words)
        if isinstance(words, list):
            require_config_files(words)
        super().parse_arguments(parser, args)
        subcommand = self.config["subcommand"]
        require_seed(self.config[subcommand].seed_everything)
        if subcommand == "fit":
            self._prepare_fit(self.config.fit)
            self._prepare_trainer(self.config.fit.trainer)
            return
        ckpt_path = self.config[subcommand].ckpt_path
        if not ckpt_path:
            raise UserError(f"expected --ckpt_path FILE with the model to {subcommand}, got none: pass best.ckpt")
        self.trained = read_trained_model(Path(ckpt_path))
        defaults = {f"model.{name}": value for name, value in self.trained.model.items() if name != "class_names"}
        defaults |= {f"data.{name}": value for name, value in self.trained.data.items() if name != "seed"}
        defaults |= {
            "data.class_names": self.trained.model["class_names"],
            "seed_everything": self.trained.data["seed"],
        }
        if subcommand == "predict":
            defaults["return_predictions"] = False  # PredictionWriter writes them, nobody keeps them
        self._parser(subcommand).set_defaults(defaults)
        super().parse_arguments(parser, args)
        trainer = self.config[subcommand].trainer
        if subcommand != "predict" and trainer.precision is None:
            # So that it measures what the fit has measured
            trainer.precision = self.trained.precision or saved_recipe(self.trained.checkpoint).get("precision")
        self._prepare_trainer(trainer)

    def _prepare_trainer(self, trainer: Namespace) -> None:
        """Fills in what depends on the machine, so that ``config.yaml`` says what was used."""
        require_usable(trainer, self.config["subcommand"])
        if trainer.precision is None:
            trainer.precision = default_precision(trainer.accelerator)
            rank_zero_only(print)(f"precision: {trainer.precision}, by this machine (--trainer.precision sets another)")
        set_tf32(trainer.precision)
        if trainer.benchmark is None:
            # cuDNN autotunes once, as shapes are fixed. Not in evaluation, whose digits must not depend on the process.
            trainer.benchmark = self.config["subcommand"] == "fit" and not trainer.deterministic

    def _prepare_fit(self, config: Namespace) -> None:
        """Names the run, and reads the checkpoint that it resumes."""
        if config.run_name is None:
            config.run_name = Path(str(config.config[-1])).stem if config.config else DEFAULT_CONFIG.stem
        require_run_name(config.run_name, "--run_name")
        if config.ckpt_path == "last":
            if config.trainer.logger not in (None, True):
                raise UserError(
                    f"--ckpt_path last looks in runs/{config.run_name}, where a run with another --trainer.logger does "
                    "not write: pass the path of its last.ckpt"
                )
            found = RunFolder.newest(config.run_name)
            config.ckpt_path = str(found.last) if found else None
            if not found:  # not an error, so that a job that is requeued has one command from its first start
                rank_zero_only(print)(f"no last.ckpt in {RUNS / config.run_name} yet: starting anew")
        if config.ckpt_path:
            self.trained = read_trained_model(Path(config.ckpt_path))
            if Path(config.ckpt_path).suffix == SAFETENSORS_SUFFIX:
                raise UserError(
                    f"expected a checkpoint to resume, got the weights {config.ckpt_path}: pass last.ckpt, or start "
                    "anew from them with --model.weights"
                )
            self._compare_length(config, self.trained)
            if batch_size := tuned_batch_size(self.trained.checkpoint):
                self._take_tuned(config, self.trained.model["learning_rate"], batch_size)

    def _take_tuned(self, config: Namespace, learning_rate: float, batch_size: int) -> None:
        """What a tuner has found is the run's: it is not looked for again."""
        given = _as_list(config.trainer.callbacks)
        config.trainer.callbacks = [x for x in given if not issubclass(_class_at(x.class_path), TUNERS)] or None
        config.model.learning_rate, config.data.batch_size = learning_rate, batch_size
        rank_zero_only(print)(
            f"as found at the run's start: learning rate {learning_rate:.4g}, batch size {batch_size}"
        )

    def _compare_length(self, config: Namespace, trained: TrainedModel) -> None:
        if 0 <= config.trainer.max_steps <= trained.steps:
            rank_zero_only(print)(
                f"{config.ckpt_path} has done its {trained.steps} steps: nothing is left to do; raise "
                "--trainer.max_steps to go on"
            )
        wanted, done = config.trainer.max_epochs, trained.epochs
        if wanted is None or wanted < 0:
            return
        callbacks = (_class_at(callback.class_path) for callback in _as_list(config.trainer.callbacks))
        wanted += any(issubclass(callback, StochasticWeightAveraging) for callback in callbacks)  # which adds one
        if wanted < done:
            raise UserError(
                f"expected --trainer.max_epochs of more than the {done} epochs that {config.ckpt_path} has done, got "
                f"{wanted}: raise it, or start anew without --ckpt_path"
            )
        if wanted == done:
            rank_zero_only(print)(
                f"{config.ckpt_path} has done its {done} epochs: nothing is left to do; raise --trainer.max_epochs to "
                "go on"
            )

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning 2.6 lets a checkpoint's hyper-parameters override typed flags here, in silence."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the logger and the callbacks of a fit, each unless the user brings one."""
        config = self.config_init[self.subcommand]
        if config.trainer.enable_progress_bar is None:
            given = any(isinstance(callback, ProgressBar) for callback in _as_list(config.trainer.callbacks))
            kwargs["enable_progress_bar"] = given or sys.stdout.isatty()
        if self.subcommand == "fit" and config.trainer.logger in (None, True):
            epochs = self.trained.epochs if self.trained else 0
            kwargs["logger"] = open_logger(config.run_name, config.ckpt_path, epochs, config.data.root)
        elif self.subcommand != "fit":
            kwargs["logger"] = False
        elif not config.trainer.logger:
            raise UserError("expected a logger, whose folder is the run folder, got none: leave --trainer.logger out")
        trainer = super().instantiate_trainer(**kwargs)
        require_usable_trainer(trainer)
        share_cpus(trainer.num_devices)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        types = {type(callback) for callback in _as_list(config["callbacks"])}
        settings = self.config[str(self.subcommand)]
        is_fit = self.subcommand == "fit"
        plain = plain_settings(self._parser("fit"), settings) if is_fit else {}
        given = _as_list(plain["trainer"]["callbacks"]) if is_fit else []
        training = [callback for callback in given if issubclass(_class_at(callback["class_path"]), TRAINING_CALLBACKS)]
        own = [
            SameStart(settings.ckpt_path),  # first: what follows may wait for all processes
            *callbacks,
            BadImages(),
            FiniteLoss(),
            ExactResume(settings.ckpt_path, training),
            EpochLog(),
            Stopping(),
            Interruption(),
            PeakMemory(),
            RunManifest(),
        ]
        if is_fit:
            own.append(RunConfig(plain))
        if config["enable_progress_bar"] and not any(issubclass(kind, ProgressBar) for kind in types):
            own.append(ProgressLine())
        own = [callback for callback in own if type(callback) not in types]
        if config["enable_checkpointing"] is False:
            own = [callback for callback in own if not isinstance(callback, BestWeights | RunManifest)]
        checkpoint = self.trained.checkpoint if self.trained and is_fit else None  # only a fit has Lightning load it
        config["plugins"] = [*_as_list(config["plugins"]), CheckpointFile(settings.ckpt_path, checkpoint)]
        return super()._instantiate_trainer(config, own)

    def after_instantiate_classes(self) -> None:
        """Compares the model with its checkpoint, and gives it the weights, from the file as it was read once.

        A new run's are pretrained, here, before any callback copies or tunes the network.
        """
        assert isinstance(self.model, ImageClassifier)
        if self.trained is None:
            for budget in callbacks_of(self.trainer, SizeBudget):  # before a download
                budget.check_network(self.model)
            self.model.load_pretrained()
            return
        if self.subcommand == "fit":
            require_same_options(self.trained.checkpoint, self.model, self.datamodule)
        trained, self.trained = self.trained, None  # a second copy of the weights would last as long as the run
        trained.load_into(self.model)
        self.model.has_weights = True
        if self.subcommand != "fit":
            self.config_init[self.subcommand]["ckpt_path"] = None


def _as_list(value: Any) -> list[Any]:
    """Of an option that takes one, several or none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _class_at(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
