"""Rows of language models: documents of text files, the text column of tables, prompts with their completions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cypher.config import CausalLmConfig, MaskLmConfig, Recipe
from cypher.data.fetch import locate
from cypher.data.splits import assign
from cypher.data.table import BadRows
from cypher.data.texts import TextRow, is_text_file, read_texts
from cypher.errors import ConfigError
from cypher.models.load import LoadedModel
from cypher.tasks.causal_lm import CausalLm, CausalPrediction, CausalRow, CompletionRow
from cypher.tasks.mask_lm import MaskLm, MaskPrediction
from cypher.tasks.table_rows import rows_of_source, text_of
from cypher.tasks.task_kind import Prepared, Record, Source


class TextRows:
    """Trains on text files (``.txt``, also compressed) or on the column ``text`` of tables."""

    fields: tuple[str, ...] = ("text",)

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """Documents of both parts; equal documents are in one of them."""
        config = self.settled(recipe)
        train, development, skipped = read_parts(self, recipe, config)
        return Prepared(config=config, rows=lambda: self.made(config, loaded, train, development), skipped=skipped)

    def settled(self, recipe: Recipe) -> Any:
        """The task's section with what other sections say."""
        return recipe.task.model_copy(update={"seed": recipe.train.seed})

    def made(
        self, config: Any, loaded: LoadedModel, train: list[Any], development: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Rows as they are learnt from."""
        return train, development

    def records(self, config: Any, source: Source) -> Iterator[Record]:
        """Rows one by one."""
        if source.stream is None and is_text_file(source.path):
            for row in read_texts(source.path, documents=config.documents, document_start=config.document_start):
                yield Record(row=row, fields={"text": "\n".join(row.texts)})
            return
        yield from rows_of_source(source, needed=("text",), make=_text_row)

    def texts(self, recipe: Recipe) -> Iterator[str]:
        """Of the training part, to train a tokenizer on."""
        for row in read_parts(self, recipe, recipe.task)[0]:
            yield from texts_of(row)


class CausalRows(TextRows):
    """Likewise, or trains on the columns ``prompt`` and ``completion`` of tables."""

    fields = ("text", "prompt", "completion")

    def settled(self, recipe: Recipe) -> Any:
        """Nothing is missing from the section."""
        return recipe.task

    def made(
        self, config: Any, loaded: LoadedModel, train: list[Any], development: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Short documents share rows, in the held-out part too."""
        if config.completions:
            return train, development
        task = CausalLm(config, tokenizer=loaded.tokenizer, special=loaded.special)
        return task.pack(train), task.pack(development)

    def records(self, config: Any, source: Source) -> Iterator[Record]:
        """Rows one by one; without targets every text is a prompt to go on from."""
        if config.completions:
            needed = ("prompt", "completion") if source.with_targets else ("prompt",)
            yield from rows_of_source(source, needed=needed, make=_completion_row)
            return
        for record in super().records(config, source):
            if source.with_targets:
                yield record
            else:
                yield Record(row=CompletionRow(prompt="\n".join(record.row.texts)), fields=record.fields)


def read_parts(rows: Any, recipe: Recipe, config: Any) -> tuple[list[Any], list[Any], int]:
    """Training and development rows, and how many could not be read.

    Args:
        rows: A row source with ``fields``; equal rows fall into one part.
        recipe: Names files, columns and the share held out.
        config: Of the task.

    Raises:
        ConfigError: ``data.columns`` names a field that the task has not.
    """
    data, bad = recipe.data, BadRows(skip=recipe.data.skip_bad_rows)
    if unknown := sorted(set(data.columns) - set(rows.fields)):
        raise ConfigError(f"data.columns.{unknown[0]}", needed=f"a field of the task: {', '.join(rows.fields)}")

    def read(names: Sequence[str], *, training: bool) -> list[Any]:
        sources = [
            Source(path=locate(name, training=training), columns=data.columns, with_targets=True, bad=bad)
            for name in names
        ]
        return [record.row for source in sources for record in rows.records(config, source)]

    train, development = read(data.train, training=True), read(data.development, training=False)
    if not data.development:
        parts: dict[str, list[Any]] = {"train": [], "development": []}
        fractions = {"train": 1 - data.development_fraction, "development": data.development_fraction}
        for row in train:
            # What is read together with its answer is one text, so that no answer is known from training.
            parts[assign(next(iter(texts_of(row))), fractions=fractions)].append(row)
        train, development = parts["train"], parts["development"]
    if data.limit is not None and len(train) > data.limit:
        chosen = random.Random(0).sample(range(len(train)), data.limit)  # noqa: S311 - a choice of rows
        train = [train[place] for place in sorted(chosen)]
    return train, development, bad.skipped


def texts_of(row: Any) -> Iterator[str]:
    """Every text of a row, what is read first."""
    if isinstance(row, TextRow):
        yield from row.texts
        return
    for name in ("prompt", "completion", "source", "target", "first", "second"):
        if getattr(row, name, None) is not None:
            yield getattr(row, name)
    yield from getattr(row, "negatives", ())


def _text_row(values: Mapping[str, Any], place: str) -> TextRow:
    return TextRow(texts=(text_of(values["text"], "text", place),))


def _completion_row(values: Mapping[str, Any], place: str) -> CompletionRow:
    completion = text_of(values["completion"], "completion", place) if "completion" in values else None
    return CompletionRow(prompt=text_of(values["prompt"], "prompt", place), completion=completion)


def build_mask_lm(config: MaskLmConfig, loaded: LoadedModel) -> MaskLm:
    """The task on a model's tokenizer."""
    return MaskLm(config, tokenizer=loaded.tokenizer, special=loaded.special)


def build_causal_lm(config: CausalLmConfig, loaded: LoadedModel) -> CausalLm:
    """The task on a model's tokenizer."""
    return CausalLm(config, tokenizer=loaded.tokenizer, special=loaded.special)


def mask_answer(
    task: MaskLm, prediction: MaskPrediction, calibration: Mapping[str, Any], row: TextRow
) -> dict[str, Any]:
    """Of each mask in the text the likeliest tokens with their probabilities."""
    return {
        "prediction": [[fill.token for fill in fills] for fills in prediction.fills],
        "probability": [[fill.score for fill in fills] for fills in prediction.fills],
    }


def causal_answer(
    task: CausalLm, prediction: CausalPrediction, calibration: Mapping[str, Any], row: CausalRow
) -> dict[str, Any]:
    """How the prompt goes on."""
    return {"prediction": prediction.text}
