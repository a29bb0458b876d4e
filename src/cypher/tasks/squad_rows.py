"""Questions and passages for span extraction: from SQuAD's JSON, or from a table to ask of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cypher.config import Recipe
from cypher.data.fetch import locate
from cypher.data.readers import SquadParagraph, read_squad
from cypher.errors import DataError
from cypher.models.load import LoadedModel
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan, SpanCandidate, SpanRow, score_spans
from cypher.tasks.similar_words import SimilarWords
from cypher.tasks.span_rows import held_out, span_rows
from cypher.tasks.table_rows import rows_of_source, text_of
from cypher.tasks.task_kind import Prepared, Record, Source
from cypher.tasks.unanswerable import MISLEADING, unanswerable_rows


class SquadRows:
    """Trains on SQuAD's JSON; is used on that, or on a table with columns ``question`` and ``context``."""

    def prepare(self, recipe: Recipe, loaded: LoadedModel) -> Prepared:
        """Nothing of the task depends on its rows, so they are made when they are asked for."""
        return Prepared(config=recipe.task, rows=lambda: training_rows(recipe, loaded))

    def records(self, config: Any, source: Source) -> Iterator[Record]:
        """Rows one by one; only SQuAD's JSON has answers.

        Raises:
            DataError: The file cannot be read, or a table should say what is right.
        """
        name = source.path.name.lower().removesuffix(".gz")
        if source.stream is None and name.endswith(".json"):
            paragraphs = read_squad(source.path)
            for row in span_rows(paragraphs):
                yield Record(row=row, fields={"id": row.id, "question": row.question, "context": row.passage})
            return
        if source.with_targets:
            raise DataError(f"{source.path} has no answers to compare with", needed="SQuAD's JSON")

        def make(values: Mapping[str, Any], place: str) -> SpanRow:
            question, passage = (text_of(values[name], name, place) for name in ("question", "context"))
            return SpanRow(id=place, question=question, passage=passage)

        yield from rows_of_source(source, needed=("question", "context"), make=make)


def training_rows(recipe: Recipe, loaded: LoadedModel) -> tuple[list[SpanRow], list[SpanRow]]:
    """Training and development rows; unanswerable pairs never cross from one to the other."""
    train_part: list[SquadParagraph] = []
    development_part: list[SquadParagraph] = []
    for name in recipe.data.train:
        paragraphs = read_squad(locate(name, training=True))
        if recipe.data.development:
            train_part += paragraphs
            continue
        kept, held = held_out(paragraphs, fraction=recipe.data.development_fraction)
        train_part += kept
        development_part += held
    for name in recipe.data.development:
        development_part += read_squad(locate(name))
    rows = span_rows(train_part)[: recipe.data.limit]
    limit = None if recipe.data.limit is None else int(recipe.data.limit * recipe.data.unanswerable)
    development = span_rows(development_part)
    if recipe.data.unanswerable:
        similar_words = SimilarWords(loaded.model.token_vectors(), loaded.tokenizer)
        rows += unanswerable_rows(
            train_part,
            per_question=recipe.data.unanswerable,
            seed=recipe.train.seed,
            similar_words=similar_words,
        )[:limit]
        # One a question: the threshold must not lean towards answering because most questions have an answer.
        development += unanswerable_rows(
            development_part, per_question=1.0, seed=0, similar_words=similar_words, weights=MISLEADING
        )
    return rows, development


def answer(
    task: ExtractSpan, prediction: SpanCandidate | None, calibration: Mapping[str, Any], row: SpanRow
) -> dict[str, Any]:
    """The span's text and place and the chance that it is right; no text where the score is below the threshold."""
    reading = Calibration(**calibration)
    if prediction is None:
        return {"prediction": None, "probability": 0.0, "start": None, "end": None}
    is_answer = prediction.score >= reading.threshold
    return {
        "prediction": row.passage[prediction.start : prediction.end] if is_answer else None,
        "probability": reading.probability(prediction.score),
        "start": prediction.start if is_answer else None,
        "end": prediction.end if is_answer else None,
    }


def score(
    task: ExtractSpan,
    rows: Sequence[SpanRow],
    predictions: Sequence[SpanCandidate | None],
    calibration: Mapping[str, Any],
) -> dict[str, float]:
    """As in training, but under the threshold that was found then."""
    return score_spans(rows, predictions, threshold=Calibration(**calibration).threshold)
