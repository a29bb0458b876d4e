"""From a ``[task] kind`` to the task. A new one is its section in ``config/task.py`` and an entry here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cypher.config import (
    CausalLmConfig,
    ChooseConfig,
    ClassifyConfig,
    ClassifySpanPairConfig,
    EmbedConfig,
    ExtractSpanConfig,
    JudgeCandidatesConfig,
    MaskLmConfig,
    RegressConfig,
    TagConfig,
    TranslateConfig,
)
from cypher.errors import ModelError
from cypher.models.load import LoadedModel
from cypher.tasks import (
    choose,
    classify,
    classify_span_pair,
    judge_candidates,
    pair_rows,
    regress,
    squad_rows,
    tag,
    text_rows,
)
from cypher.tasks.choose import Choose
from cypher.tasks.choose_rows import ROWS as CHOOSE_ROWS
from cypher.tasks.classify import Classify
from cypher.tasks.classify_rows import ROWS as CLASSIFY_ROWS
from cypher.tasks.classify_span_pair import ClassifySpanPair
from cypher.tasks.extract_span import ExtractSpan
from cypher.tasks.judge_candidates import JudgeCandidates
from cypher.tasks.judge_rows import ROWS as JUDGE_ROWS
from cypher.tasks.regress import Regress
from cypher.tasks.span_pair_rows import ROWS as SPAN_PAIR_ROWS
from cypher.tasks.squad_rows import SquadRows
from cypher.tasks.tag import Tag
from cypher.tasks.tag_rows import ROWS as TAG_ROWS
from cypher.tasks.task_kind import TaskKind
from cypher.tasks.text_sequence import TextReader
from cypher.train.task import Task


def on_encoder(task: Callable[..., Task[Any, Any, Any]]) -> Callable[[Any, LoadedModel], Task[Any, Any, Any]]:
    """For tasks that read with an encoder's tokenizer, special tokens and segment ids."""

    def build(config: Any, loaded: LoadedModel) -> Task[Any, Any, Any]:
        return task(config, tokenizer=loaded.tokenizer, special=loaded.special, segments=loaded.uses_segment_ids)

    return build


def on_texts(task: Callable[..., Task[Any, Any, Any]]) -> Callable[[Any, LoadedModel], Task[Any, Any, Any]]:
    """For tasks that read one or two whole texts, with any architecture."""

    def build(config: Any, loaded: LoadedModel) -> Task[Any, Any, Any]:
        reader = TextReader(
            tokenizer=loaded.tokenizer,
            special=loaded.special,
            segments=loaded.uses_segment_ids,
            with_source=loaded.architecture.name == "seq2seq",
            max_length=config.max_length,
        )
        return task(config, reader=reader)

    return build


def _build_tag(config: TagConfig, loaded: LoadedModel) -> Tag:
    return Tag(config, tokenizer=loaded.tokenizer, special=loaded.special)


def uncalibrated(
    task: Task[Any, Any, Any], rows: Sequence[Any], predictions: Sequence[Any], calibration: Mapping[str, Any]
) -> dict[str, float]:
    """Scores of a task that remembers nothing from its held-out rows."""
    return task.score(rows, predictions)


KINDS: dict[str, TaskKind] = {
    "extract_span": TaskKind(
        config=ExtractSpanConfig,
        build=on_encoder(ExtractSpan),
        rows=SquadRows(),
        answer=squad_rows.answer,
        score=squad_rows.score,
        folder="reader",
    ),
    "classify": TaskKind(
        config=ClassifyConfig,
        build=on_texts(Classify),
        rows=CLASSIFY_ROWS,
        answer=classify.answer,
        score=Classify.score_calibrated,
    ),
    "tag": TaskKind(config=TagConfig, build=_build_tag, rows=TAG_ROWS, answer=tag.answer, score=uncalibrated),
    "regress": TaskKind(
        config=RegressConfig, build=on_texts(Regress), rows=regress.ROWS, answer=regress.answer, score=uncalibrated
    ),
    "mask_lm": TaskKind(
        config=MaskLmConfig,
        build=text_rows.build_mask_lm,
        rows=text_rows.TextRows(),
        answer=text_rows.mask_answer,
        score=uncalibrated,
    ),
    "causal_lm": TaskKind(
        config=CausalLmConfig,
        build=text_rows.build_causal_lm,
        rows=text_rows.CausalRows(),
        answer=text_rows.causal_answer,
        score=uncalibrated,
    ),
    "translate": TaskKind(
        config=TranslateConfig,
        build=pair_rows.build_translate,
        rows=pair_rows.PairRows(),
        answer=pair_rows.translate_answer,
        score=uncalibrated,
    ),
    "embed": TaskKind(
        config=EmbedConfig,
        build=pair_rows.build_embed,
        rows=pair_rows.EmbedRows(),
        answer=pair_rows.embed_answer,
        score=uncalibrated,
    ),
    "choose": TaskKind(
        config=ChooseConfig, build=on_texts(Choose), rows=CHOOSE_ROWS, answer=choose.answer, score=uncalibrated
    ),
    "classify_span_pair": TaskKind(
        config=ClassifySpanPairConfig,
        build=on_texts(ClassifySpanPair),
        rows=SPAN_PAIR_ROWS,
        answer=classify_span_pair.answer,
        score=uncalibrated,
    ),
    "judge_candidates": TaskKind(
        config=JudgeCandidatesConfig,
        build=on_encoder(JudgeCandidates),
        rows=JUDGE_ROWS,
        answer=judge_candidates.answer,
        score=JudgeCandidates.score_calibrated,
    ),
}


def kind_of(name: str) -> TaskKind:
    """All that is known of a kind.

    Raises:
        ModelError: There is none of that name; a saved task is of a later version.
    """
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        raise ModelError(
            f"no task is called {name!r}" + (f" (did you mean {near[0]}?)" if near else ""),
            needed=f"one of {', '.join(KINDS)}",
        )
    return KINDS[name]
