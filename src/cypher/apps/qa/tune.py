"""Which setting to take on this machine: answer quality against latency, measured on a file of questions.

Every question is put to every setting before the next one, in an order that rotates, so a machine that is busy for a
while slows all settings alike. A question's measurements are one line of ``measurements.jsonl``, written as soon as
they are whole: a run that is interrupted goes on after its last line.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cypher.apps.qa.evaluate import earned, index_paragraphs, open_store, percent, sample
from cypher.apps.qa.index import Progress
from cypher.apps.qa.question_answering import QuestionAnswering, model_under
from cypher.apps.qa.reader import Reader
from cypher.apps.qa.retrieve import Retriever
from cypher.apps.qa.store_settings import embedder_identity
from cypher.config import InferencePrecision
from cypher.data.readers import SquadParagraph
from cypher.errors import ConfigError, DataError
from cypher.files import write_text
from cypher.hub.integrity import sha256_of
from cypher.layers.kernels import pack_linear
from cypher.report import TradePoint, pareto_front, tradeoff
from cypher.tasks.extract_span import SpanRow
from cypher.tasks.find_reader import find_reader
from cypher.tasks.span_rows import span_rows

TOP_K_RETRIEVER = (1, 2, 3, 5, 10, 20)
WORDS = (50, 100, 150)
PRECISIONS: tuple[InferencePrecision, ...] = ("fp32", "bf16", "int8")

TOLERANCE = 1.0
"""Points of F1 that a faster setting may be worse than the best and still be recommended."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is tuned.

    Args:
        top_k_retriever: Passages that are read.
        words: Most words of a passage.
        precision: Of the arithmetic.
    """

    top_k_retriever: int
    words: int
    precision: InferencePrecision

    @property
    def name(self) -> str:
        """As in tables and figures."""
        return f"{self.top_k_retriever} × {self.words} words, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class MeasuredSetting:
    """A setting with what it gives.

    Args:
        setting: What was measured.
        f1: Percent, of the decision, over all questions.
        exact: Likewise, exact match.
        latency_ms: Median of one question from text to answers.
        on_front: No other setting is at least as fast and as good, and better in one.
    """

    setting: Setting
    f1: float
    exact: float
    latency_ms: float
    on_front: bool

    def to_dict(self) -> dict[str, Any]:
        """One flat JSON object."""
        return {**asdict(self.setting), **{key: value for key, value in vars(self).items() if key != "setting"}}


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """A sweep.

    Args:
        settings: From the fastest to the slowest.
        recommended: The fastest setting within ``TOLERANCE`` points of the best F1.
        n_questions: Each was asked of every setting.
        figure: PNG of F1 against latency.
    """

    settings: tuple[MeasuredSetting, ...]
    recommended: Setting
    n_questions: int
    figure: Path

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "settings": [measured.to_dict() for measured in self.settings],
            "recommended": asdict(self.recommended),
            "n_questions": self.n_questions,
            "figure": str(self.figure),
        }


def tune(
    qa: QuestionAnswering,
    paragraphs: Sequence[SquadParagraph],
    *,
    folder: Path,
    limit: int | None = 100,
    top_k_retriever: Sequence[int] = TOP_K_RETRIEVER,
    words: Sequence[int] = WORDS,
    precisions: Sequence[InferencePrecision] | None = None,
    progress: Progress | None = None,
) -> TuneReport:
    """Measure all combinations, in open mode.

    Args:
        qa: Names both models; its own store and precision are not used.
        paragraphs: From ``cypher.data.readers.read_squad``.
        folder: Gets ``measurements.jsonl``, ``tradeoff.png`` and the stores; an unfinished sweep is resumed.
        limit: Ask so many of the questions, chosen by a hash of their ids; ``None`` asks all.
        top_k_retriever: Passages to read.
        words: Lengths of passages.
        precisions: ``None`` takes all that this machine has kernels for.
        progress: Told how far it is.

    Raises:
        ConfigError: The folder holds another sweep, or nothing is swept.
        DataError: There is no question.
    """
    offered = offered_precisions() if precisions is None else tuple(precisions)
    settings = [
        Setting(top_k_retriever=k, words=n, precision=precision)
        for precision in offered
        for n in words
        for k in top_k_retriever
    ]
    if not settings:
        raise ConfigError("no setting to measure", needed="at least one value of each")
    rows = sample(span_rows(paragraphs), limit)
    _claim(folder, qa, settings, rows, progress)
    rounds = _read_rounds(folder / "measurements.jsonl")
    if len(rounds) < len(rows):
        _measure(qa, paragraphs, rows, settings, rounds, folder, progress)
    return _report(settings, [rounds[row.id] for row in rows], folder)


def offered_precisions() -> tuple[InferencePrecision, ...]:
    """The precisions this machine has kernels for."""
    offered: list[InferencePrecision] = []
    for precision in PRECISIONS:
        try:
            pack_linear(torch.zeros(8, 8), None, precision, None)
        except ConfigError:
            continue
        offered.append(precision)
    return tuple(offered)


def recommend(settings: Sequence[MeasuredSetting]) -> Setting:
    """The fastest setting whose F1 is at most ``TOLERANCE`` points below the best."""
    best = max(measured.f1 for measured in settings)
    good = [measured for measured in settings if measured.f1 >= best - TOLERANCE]
    return min(good, key=lambda measured: measured.latency_ms).setting


def _measure(
    qa: QuestionAnswering,
    paragraphs: Sequence[SquadParagraph],
    rows: Sequence[SpanRow],
    settings: Sequence[Setting],
    rounds: dict[str, Any],
    folder: Path,
    progress: Progress | None,
) -> None:
    """Ask what is not measured yet, and write each question's line as it is done."""
    readers: dict[str, Reader] = {}
    retrievers: dict[tuple[str, int], Retriever] = {}
    for precision in dict.fromkeys(setting.precision for setting in settings):
        own = QuestionAnswering(model=qa.model_name, reader=qa.reader_name, precision=precision)
        readers[precision] = own.reader()
        for words in dict.fromkeys(setting.words for setting in settings):
            store = open_store(own, folder / "stores" / f"{words}-words", words=words)
            retrievers[precision, words] = Retriever(store, own.embedder())
            index_paragraphs(retrievers[precision, words], paragraphs, progress)

    def ask(row: SpanRow, setting: Setting) -> dict[str, float]:
        started = time.perf_counter()
        retriever = retrievers[setting.precision, setting.words]
        passages = retriever.retrieve(row.question, top_k=setting.top_k_retriever) if row.question.strip() else []
        result = readers[setting.precision].read(row.question, passages)
        seconds = time.perf_counter() - started
        score = earned(row, result)
        return {"f1": score.f1, "exact": score.exact, "seconds": seconds}

    for setting in settings:
        ask(rows[0], setting)  # the first call of a kernel and of a store is slower
    for number, row in enumerate(rows):
        if row.id not in rounds:
            order = [*settings[number % len(settings) :], *settings[: number % len(settings)]]
            rounds[row.id] = {setting.name: ask(row, setting) for setting in order}
            with (folder / "measurements.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": row.id, "settings": rounds[row.id]}) + "\n")
        if progress is not None:
            progress("measuring", len(rounds), len(rows))


def _report(settings: Sequence[Setting], rounds: Sequence[dict[str, Any]], folder: Path) -> TuneReport:
    """Medians and means, the front, the figure."""
    latencies = {s.name: 1000 * median(asked[s.name]["seconds"] for asked in rounds) for s in settings}
    f1 = {s.name: percent([asked[s.name]["f1"] for asked in rounds]) or 0.0 for s in settings}
    points = [TradePoint(name=s.name, latency=latencies[s.name], quality=f1[s.name]) for s in settings]
    front = {point.name for point in pareto_front(points)}
    measured = [
        MeasuredSetting(
            setting=s,
            f1=f1[s.name],
            exact=percent([asked[s.name]["exact"] for asked in rounds]) or 0.0,
            latency_ms=latencies[s.name],
            on_front=s.name in front,
        )
        for s in settings
    ]
    recommended = recommend(measured)
    figure = tradeoff(
        # Names of settings that another one beats would hide the others.
        [p if p.name in front else TradePoint(name="", latency=p.latency, quality=p.quality) for p in points],
        folder / "tradeoff.png",
        latency_label="median latency (ms a question)",
        quality_label="F1 (%)",
        recommended=recommended.name,
        title=f"{len(rounds)} questions, passages read × their length",
    )
    return TuneReport(
        settings=tuple(sorted(measured, key=lambda row: row.latency_ms)),
        recommended=recommended,
        n_questions=len(rounds),
        figure=figure,
    )


def _claim(
    folder: Path,
    qa: QuestionAnswering,
    settings: Sequence[Setting],
    rows: Sequence[SpanRow],
    progress: Progress | None,
) -> None:
    """Write what is swept, or check that the folder holds the same sweep; models are known by their weights."""
    questions = hashlib.sha256(json.dumps([asdict(row) for row in rows]).encode()).hexdigest()
    sweep = {
        "model": embedder_identity(qa.embedder(progress=progress), name=qa.model_name),
        "reader": _reader_identity(qa, progress),
        "questions": questions,
        "settings": [setting.name for setting in settings],
    }
    path, text = folder / "sweep.json", json.dumps(sweep, indent=1)
    if not path.exists():
        write_text(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds another sweep", change="name another --out, or remove that folder")


def _reader_identity(qa: QuestionAnswering, progress: Progress | None) -> str:
    """``NAME@FINGERPRINT`` of all that a reader's answers depend on: its files and the weights under its adapter."""
    folder = find_reader(qa.reader_name)
    model = model_under(folder, progress=progress)
    weights = [*folder.glob("*.json"), *folder.glob("*.safetensors"), *model.glob("*.safetensors")]
    digest = hashlib.sha256("".join(sha256_of(path) for path in sorted(weights)).encode())
    return f"{qa.reader_name}@{digest.hexdigest()[:12]}"


def _read_rounds(path: Path) -> dict[str, Any]:
    """Whole lines of an earlier sitting; a last line that was cut off is taken away, and asked again."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(path, whole)
    try:
        return {row["id"]: row["settings"] for row in map(json.loads, whole.splitlines())}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error})", change="remove it and run again") from error
