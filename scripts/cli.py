"""fit, validate, test and predict: LightningCLI with this project's model, data, callbacks and defaults."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

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
    TemperatureFit,
)
from callbacks.run.config import plain_settings
from callbacks.run.exact_resume import require_same_options, saved_recipe
from callbacks.run.progress import ProgressLine
from callbacks.run.recipe import TRAINING_CALLBACKS
from callbacks.trainer_parts import callbacks_of
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier
from lightning_modules.model_options import require_usable_length
from lightning_modules.trained_model import GRAPH_SUFFIXES, TrainedModel, read_trained_model, require_weights
from scripts.config_files import require_config_files
from scripts.exported_graph import answer_with_file, require_usable_options
from scripts.hardware import default_precision, set_tf32, share_cpus
from scripts.help_screen import show_help
from scripts.parser import Parser, prefer_whole_numbers
from scripts.resume import as_list, entries_of_type, read_resumed
from scripts.run_logger import open_logger, require_run_name
from scripts.trainer_options import require_usable, require_usable_trainer

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "default.yaml"
EPILOG = "Beforehand: cbam100 audit --data.root DIR looks at every file of a data set."


def require_seed(seed: int) -> None:
    """Raises ``UserError`` if a seed is out of range, or a bool, which Lightning does not take for a number."""
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"--seed_everything must be between 0 and 2^32 - 1, got {seed}: 42 is the default")


class ClassifierCLI(LightningCLI):
    """A ``fit`` starts from ``configs/default.yaml``, the other subcommands from the settings in the checkpoint."""

    trained: TrainedModel | None = None

    def __init__(self, args: ArgsType = None) -> None:
        words = sys.argv[1:] if args is None else args
        self._typed_subcommand = words[0] if isinstance(words, list) and words else None
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

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_name", type=str | None, default=None,
            help="Name of the folder below runs/; by default the stem of the last --config file, or default.",
        )  # fmt: skip
        parser.add_lightning_class_args(SizeBudget, "size_budget")
        parser.add_lightning_class_args(BestWeights, "best")
        parser.add_lightning_class_args(PredictionWriter, "prediction")
        parser.add_lightning_class_args(Insight, "insight")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("data", "model.class_names", lambda data: list(data.classes.names), "instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        # Its options take a tenth of a second for each subcommand, of which one was typed.
        if self._typed_subcommand in self.subcommands() and self._typed_subcommand != subcommand:
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        prefer_whole_numbers(parser)
        return parser

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # Twice where there is a checkpoint: to find it, and again with its settings as defaults, so that flags win.
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
            raise UserError(f"{subcommand} needs a trained model: pass --ckpt_path best.ckpt")
        if subcommand != "predict":
            require_weights(Path(ckpt_path))
        self.trained = read_trained_model(Path(ckpt_path))
        defaults = {f"model.{name}": value for name, value in self.trained.model.items() if name != "class_names"}
        defaults |= {f"data.{name}": value for name, value in self.trained.data.items() if name != "seed"}
        defaults["data.class_names"] = self.trained.model["class_names"]
        defaults["seed_everything"] = self.trained.data["seed"]
        if subcommand == "predict":
            defaults["return_predictions"] = False  # PredictionWriter writes them
        self._parser(subcommand).set_defaults(defaults)
        super().parse_arguments(parser, args)
        trainer = self.config[subcommand].trainer
        if subcommand != "predict" and trainer.precision is None:
            # as in the fit, so that it measures the same
            trainer.precision = self.trained.precision or saved_recipe(self.trained.checkpoint).get("precision")
        if Path(ckpt_path).suffix in GRAPH_SUFFIXES:
            require_usable_options(self.config.predict, self.trained)
        self._prepare_trainer(trainer)

    def _prepare_trainer(self, trainer: Namespace) -> None:
        """Sets the options that depend on the machine, so that ``config.yaml`` says what was used."""
        require_usable(trainer, self.config["subcommand"])
        if trainer.precision is None:
            trainer.precision = default_precision(trainer.accelerator)
            rank_zero_only(print)(f"precision: {trainer.precision}, chosen for this machine (see --trainer.precision)")
        set_tf32(trainer.precision)
        if trainer.benchmark is None:
            # Shapes are fixed, so cuDNN autotunes once; not in evaluation, whose digits must not depend on the choice.
            trainer.benchmark = self.config["subcommand"] == "fit" and not trainer.deterministic

    def _prepare_fit(self, config: Namespace) -> None:
        """Names the run and reads the checkpoint that it resumes."""
        if config.run_name is None:
            config.run_name = Path(str((config.config or [None])[-1] or DEFAULT_CONFIG)).stem
        require_run_name(config.run_name, "--run_name")
        self.trained = read_resumed(config)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning 2.6 lets a checkpoint's hyper-parameters override typed flags here without a word."""

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand]
        if config.trainer.enable_progress_bar is None:
            given = any(isinstance(callback, ProgressBar) for callback in as_list(config.trainer.callbacks))
            kwargs["enable_progress_bar"] = given or sys.stdout.isatty()
        if self.subcommand == "fit" and config.trainer.logger in (None, True):
            epochs = self.trained.epochs if self.trained else 0
            kwargs["logger"] = open_logger(config.run_name, config.ckpt_path, epochs, config.data.root)
        elif self.subcommand != "fit":
            kwargs["logger"] = False
        elif not config.trainer.logger:
            raise UserError("fit writes to its logger's folder, so --trainer.logger cannot be false: leave it out")
        trainer = super().instantiate_trainer(**kwargs)
        require_usable_trainer(trainer)
        share_cpus(trainer.num_devices)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        types = {type(callback) for callback in as_list(config["callbacks"])}
        settings = self.config[str(self.subcommand)]
        is_fit = self.subcommand == "fit"
        plain = plain_settings(self._parser("fit"), settings) if is_fit else {}
        training = entries_of_type(plain["trainer"]["callbacks"], TRAINING_CALLBACKS) if is_fit else []
        own = [
            SameStart(settings.ckpt_path),  # first, as the others may wait for all processes
            *callbacks,
            BadImages(),
            FiniteLoss(),
            ExactResume(settings.ckpt_path, training),
            TemperatureFit(),
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
        checkpoint = self.trained.checkpoint if self.trained and is_fit else None  # Lightning loads it in a fit only
        config["plugins"] = [*as_list(config["plugins"]), CheckpointFile(settings.ckpt_path, checkpoint)]
        return super()._instantiate_trainer(config, own)

    @override
    def after_instantiate_classes(self) -> None:
        # Weights are loaded here, before any callback copies or tunes the network.
        assert isinstance(self.model, ImageClassifier)
        if self.subcommand == "fit":
            self.datamodule.recipe.for_run(self.trainer)  # refuses a length that setup would refuse after a download
        if self.trained is None:
            needs_length = [*self.model.needs_length, *self.datamodule.needs_length]
            require_usable_length(self.trainer, self.model.hparams, needs_length)
            for budget in callbacks_of(self.trainer, SizeBudget):  # before weights are downloaded
                budget.check_network(self.model, self.datamodule)
            self.model.load_pretrained()
            return
        if self.subcommand == "fit":
            require_same_options(self.trained.checkpoint, self.trainer, self.model, self.datamodule)
        self.datamodule.fit_held_out = self.trained.held_out
        trained, self.trained = self.trained, None  # or a second copy of the weights would stay in memory
        path = Path(self.config[self.subcommand].ckpt_path)
        if path.suffix in GRAPH_SUFFIXES:
            answer_with_file(path, self.model, self.datamodule)
        else:
            trained.load_into(self.model)
            self.model.has_weights = True
        if self.subcommand != "fit":
            self.config_init[self.subcommand]["ckpt_path"] = None
