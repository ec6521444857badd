"""What a run enforces, keeps and writes."""

from callbacks.bad_images import BadImages
from callbacks.best_weights import BestWeights
from callbacks.epoch_log import EpochLog
from callbacks.parent_watch import ParentWatch
from callbacks.prediction_writer import PredictionWriter
from callbacks.size_budget import SizeBudget

__all__ = ["BadImages", "BestWeights", "EpochLog", "ParentWatch", "PredictionWriter", "SizeBudget"]
