"""Rows of two texts: sources with targets, and texts that belong together, from tables or files side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cypher.config import EmbedConfig, Recipe, TranslateConfig
from cypher.errors import ConfigError, DataError
from cypher.models.load import LoadedModel
from cypher.tasks.contrast import Contrast, EmbedPrediction, EmbedRow
from cypher.tasks.table_rows import rows_of_source, text_of
from cypher.tasks.task_kind import Prepared, Record, Source
from cypher.tasks.text_rows import read_parts, texts_of
from cypher.tasks.translate import PairRow, Translate, Translation, read_parallel


class PairRows:
    """Trains on the columns ``source`` and ``target`` of tables, or on two files whose lines stand beside each other.

    Such a file is named by its source, and ``task.target_suffix`` says where the other is: with ``.de``, the target of
    ``train.en.gz`` is ``train.de.gz``.
    """

    fields = ("source", "target")

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """Pairs of both parts; pairs of one source are in one of them."""
        train, development, skipped = read_parts(self, recipe, recipe.task)
        return Prepared(config=recipe.task, rows=lambda: (train, development), skipped=skipped)

    def records(self, config: TranslateConfig, source: Source) -> Iterator[Record]:
        """Rows one by one."""
        if config.target_suffix is not None and source.stream is None and source.with_targets:
            for row in read_parallel(source.path, beside(source.path, config.target_suffix)):
                yield Record(row=row, fields={"source": row.source, "target": row.target})
            return
        yield from rows_of_source(source, needed=self.fields[: 1 + source.with_targets], make=_pair_row)

    def texts(self, recipe: Recipe) -> Iterator[str]:
        """Both sides of the training part, to train a tokenizer on."""
        for row in read_parts(self, recipe, recipe.task)[0]:
            yield from texts_of(row)


def beside(path: Path, suffix: str) -> Path:
    """The file that stands beside ``path`` with another language's suffix.

    Example:
        >>> beside(Path("train.en.gz"), ".de").name
        'train.de.gz'
    """
    packed = path.suffix if path.suffix in (".gz", ".bz2") else ""
    return path.with_name(Path(path.name.removesuffix(packed)).stem + suffix + packed)


class EmbedRows:
    """Trains on the columns ``first`` and ``second`` of tables; ``negatives`` and ``score`` where they are named."""

    fields = ("first", "second", "negatives", "score")

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """Pairs of both parts; pairs of one first text are in one of them.

        Raises:
            ConfigError: A batch should be cut and its texts still be compared, without a gradient cache.
        """
        assert isinstance(recipe.task, EmbedConfig)
        config = recipe.task.model_copy(update={"parts": recipe.train.accumulation})
        Contrast(config, tokenizer=loaded.tokenizer, special=loaded.special)
        if loaded.architecture.name == "llama" and config.pooling == "first":
            raise ConfigError("task.pooling = 'first' on llama", needed="mean or last: its first token sees no other")
        train, development, skipped = read_parts(self, recipe, config)
        return Prepared(config=config, rows=lambda: (train, development), skipped=skipped)

    def records(self, config: EmbedConfig, source: Source) -> Iterator[Record]:
        """Rows one by one."""
        named = tuple(field for field in self.fields[2:] if field in source.columns)
        needed = ("first", "second", *(named if source.with_targets else ()))
        yield from rows_of_source(source, needed=needed, make=_embed_row)

    def texts(self, recipe: Recipe) -> Iterator[str]:
        """Of the training part, to train a tokenizer on."""
        for row in read_parts(self, recipe, recipe.task)[0]:
            yield from texts_of(row)


def _pair_row(values: Mapping[str, Any], place: str) -> PairRow:
    row = PairRow(source=text_of(values["source"], "source", place))
    return replace(row, target=text_of(values["target"], "target", place)) if "target" in values else row


def _embed_row(values: Mapping[str, Any], place: str) -> EmbedRow:
    negatives = values.get("negatives", [])
    if isinstance(negatives, str):
        negatives = [negatives]
    if not isinstance(negatives, list):
        raise DataError(f"{place}: negatives is a {type(negatives).__name__}", needed="a text, or a list of texts")
    score = None
    if "score" in values:
        try:
            score = float(values["score"])
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{place}: score is {values['score']!r}", needed="a number")
    return EmbedRow(
        first=text_of(values["first"], "first", place),
        second=text_of(values["second"], "second", place),
        negatives=tuple(text_of(text, "negatives", place) for text in negatives),
        score=score,
    )


def build_translate(config: TranslateConfig, loaded: LoadedModel) -> Translate:
    """The task on a model's tokenizer."""
    return Translate(config, tokenizer=loaded.tokenizer, special=loaded.special)


def build_embed(config: EmbedConfig, loaded: LoadedModel) -> Contrast:
    """The task on a model's tokenizer."""
    return Contrast(config, tokenizer=loaded.tokenizer, special=loaded.special)


def translate_answer(
    task: Translate, prediction: Translation, calibration: Mapping[str, Any], row: PairRow
) -> dict[str, Any]:
    """The translation."""
    return {"prediction": prediction.text}


def embed_answer(
    task: Contrast, prediction: EmbedPrediction, calibration: Mapping[str, Any], row: EmbedRow
) -> dict[str, Any]:
    """The cosine of the two texts."""
    return {"prediction": float(prediction.first @ prediction.second)}
