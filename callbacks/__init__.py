"""Callbacks: what a run checks, saves and writes."""

from callbacks.figures.insight import Insight
from callbacks.guards.bad_images import BadImages
from callbacks.guards.finite_loss import FiniteLoss
from callbacks.guards.interruption import Interruption
from callbacks.guards.peak_memory import PeakMemory
from callbacks.guards.size_budget import SizeBudget
from callbacks.predictions.temperature import TemperatureFit
from callbacks.predictions.writer import PredictionWriter
from callbacks.run.checkpoint_io import CheckpointFile
from callbacks.run.checkpoints import BestWeights
from callbacks.run.config import RunConfig
from callbacks.run.epoch_log import EpochLog
from callbacks.run.exact_resume import ExactResume
from callbacks.run.manifest import RunManifest
from callbacks.run.same_start import SameStart
from callbacks.run.stopping import Stopping

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
    "TemperatureFit",
]
