"""The recipe and its sections: frozen, keyword-only, the only reader of recipe files."""

from cypher.config.adapter import AdapterConfig, PartConfig, UnionConfig, adapter_config
from cypher.config.adapter_deltas import DoraConfig, DvoraConfig, Ia3Config, LoraConfig, VeraConfig
from cypher.config.adapter_plugs import (
    AdapterActivation,
    BottleneckConfig,
    CompacterConfig,
    InvertibleConfig,
    PrefixConfig,
    PromptConfig,
    ReftConfig,
)
from cypher.config.data import DataConfig
from cypher.config.fusion import FusionConfig
from cypher.config.model import ModelConfig
from cypher.config.precision import InferencePrecision, PrecisionConfig, TrainingPrecision
from cypher.config.presets import PRESETS
from cypher.config.recipe import Recipe
from cypher.config.supports import Support, matrix, supports
from cypher.config.task import ExtractSpanConfig, TaskConfig
from cypher.config.train import TrainConfig

__all__ = [
    "PRESETS", "AdapterActivation", "AdapterConfig", "BottleneckConfig", "CompacterConfig", "DataConfig", "DoraConfig",
    "DvoraConfig", "ExtractSpanConfig", "FusionConfig", "Ia3Config", "InferencePrecision", "InvertibleConfig",
    "LoraConfig", "ModelConfig", "PartConfig", "PrecisionConfig", "PrefixConfig", "PromptConfig", "Recipe",
    "ReftConfig", "Support", "TaskConfig", "TrainConfig", "TrainingPrecision", "UnionConfig", "VeraConfig",
    "adapter_config", "matrix", "supports",
]  # fmt: skip
