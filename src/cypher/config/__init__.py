"""The recipe and its sections: frozen, keyword-only, the only reader of recipe files."""

from cypher.config.adapter import AdapterConfig, LoraConfig
from cypher.config.data import DataConfig
from cypher.config.fusion import FusionConfig
from cypher.config.model import ModelConfig
from cypher.config.precision import InferencePrecision, PrecisionConfig, TrainingPrecision
from cypher.config.recipe import Recipe
from cypher.config.supports import Support, matrix, supports
from cypher.config.task import ExtractSpanConfig, TaskConfig
from cypher.config.train import TrainConfig

__all__ = [
    "AdapterConfig", "DataConfig", "ExtractSpanConfig", "FusionConfig", "InferencePrecision", "LoraConfig",
    "ModelConfig", "PrecisionConfig", "Recipe", "Support", "TaskConfig", "TrainConfig", "TrainingPrecision", "matrix", "supports",
]  # fmt: skip
