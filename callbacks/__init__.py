"""What a run enforces, keeps and writes."""

from callbacks.bad_images import BadImages
from callbacks.best_weights import BestWeights
from callbacks.checkpoint_file import CheckpointFile
from callbacks.epoch_log import EpochLog
from callbacks.exact_resume import ExactResume
from callbacks.finite_loss import FiniteLoss
from callbacks.insight import Insight
from callbacks.interruption import Interruption
from callbacks.peak_memory import PeakMemory
from callbacks.prediction_writer import PredictionWriter
from callbacks.run_config import RunConfig
from callbacks.run_manifest import RunManifest
from callbacks.same_start import SameStart
from callbacks.size_budget import SizeBudget
from callbacks.stopping import Stopping

__all__ = [
    "BadImages",
    "BestWeights",
    "CheckpointFile",
    "EpochLog",
    "ExactResume",
    "FiniteLoss",
    "Insight",
    "Interruption",
    "PeakMemory",
    "PredictionWriter",
    "RunConfig",
    "RunManifest",
    "SameStart",
    "SizeBudget",
    "Stopping",
]
