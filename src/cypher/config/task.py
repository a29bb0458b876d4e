"""``[task]``: what is learned; the ``kind`` key chooses."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from cypher.config.choose import ChooseConfig
from cypher.config.classify import ClassifyConfig
from cypher.config.classify_span_pair import ClassifySpanPairConfig
from cypher.config.embed import EmbedConfig
from cypher.config.extract_span import ExtractSpanConfig
from cypher.config.judge_candidates import JudgeCandidatesConfig
from cypher.config.language import CausalLmConfig, MaskLmConfig, TranslateConfig
from cypher.config.regress import RegressConfig
from cypher.config.tag import TagConfig
from cypher.errors import nearest

TASK_KINDS = (
    "extract_span", "classify", "tag", "regress", "choose", "classify_span_pair", "judge_candidates",
    "mask_lm", "causal_lm", "translate", "embed",
)  # fmt: skip
"""Every kind that a recipe can train."""


def _resolved(given: Any) -> Any:
    """A section without a kind is span extraction, the first task there was."""
    if not isinstance(given, dict):
        return given
    values = {"kind": "extract_span", **given}
    if values["kind"] not in TASK_KINDS:
        raise ValueError(f"no task is called {values['kind']!r}; {nearest(str(values['kind']), TASK_KINDS)}")
    return values


TaskConfig = Annotated[
    ExtractSpanConfig
    | ClassifyConfig
    | TagConfig
    | RegressConfig
    | MaskLmConfig
    | CausalLmConfig
    | TranslateConfig
    | EmbedConfig
    | ChooseConfig
    | ClassifySpanPairConfig
    | JudgeCandidatesConfig,
    Field(discriminator="kind"),
    BeforeValidator(_resolved),
]
"""Every task; the ``kind`` key chooses."""
