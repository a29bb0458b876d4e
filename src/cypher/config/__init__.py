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
from cypher.config.arrangement import ArrangementConfig
from cypher.config.choose import ChooseConfig
from cypher.config.classify import ClassifyConfig
from cypher.config.classify_span_pair import ClassifySpanPairConfig
from cypher.config.data import DataConfig
from cypher.config.embed import EmbedConfig
from cypher.config.extract_span import ExtractSpanConfig
from cypher.config.fusion import FusionConfig
from cypher.config.judge_candidates import JudgeCandidatesConfig
from cypher.config.language import CausalLmConfig, MaskLmConfig, TranslateConfig
from cypher.config.model import FreshConfig, ModelConfig
from cypher.config.parallel import ParallelPlan
from cypher.config.precision import InferencePrecision, PrecisionConfig, TrainingPrecision
from cypher.config.presets import PRESETS
from cypher.config.recipe import Recipe
from cypher.config.regress import RegressConfig
from cypher.config.supports import Support, matrix, supports
from cypher.config.tag import TagConfig
from cypher.config.task import TASK_KINDS, TaskConfig
from cypher.config.train import TrainConfig

__all__ = [
    "PRESETS", "TASK_KINDS", "AdapterActivation", "AdapterConfig", "ArrangementConfig", "BottleneckConfig",
    "CausalLmConfig", "ChooseConfig", "ClassifyConfig", "ClassifySpanPairConfig", "CompacterConfig", "DataConfig",
    "DoraConfig", "DvoraConfig", "EmbedConfig", "ExtractSpanConfig", "FreshConfig", "FusionConfig", "Ia3Config",
    "InferencePrecision", "InvertibleConfig", "JudgeCandidatesConfig", "LoraConfig", "MaskLmConfig", "ModelConfig",
    "ParallelPlan", "PartConfig", "PrecisionConfig", "PrefixConfig", "PromptConfig", "Recipe", "ReftConfig",
    "RegressConfig", "Support", "TagConfig", "TaskConfig", "TrainConfig", "TrainingPrecision", "TranslateConfig",
    "UnionConfig", "VeraConfig", "adapter_config", "matrix", "supports",
]  # fmt: skip
