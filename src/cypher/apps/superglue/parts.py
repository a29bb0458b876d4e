"""Which rows of a task's folder are learnt from, which choose the checkpoint, and which the report is on.

The rows that are reported on choose nothing: not the checkpoint, not a threshold, not a seed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cypher.apps.superglue.benchmark import BenchmarkTask, group_of, is_labelled, read_rows
from cypher.apps.superglue.rows import MultiRcRow
from cypher.data.splits import assign
from cypher.errors import ConfigError, DataError

CHOOSING = 0.1
"""Share of the training rows that are held out to choose by."""
SMALL = 1000
CHOOSING_OF_SMALL = 0.2
CHOOSING_OF_FEW = 0.25
"""The same where there are fewer rows than :data:`SMALL`, or a few dozen: a choice by a handful is a draw."""
DIVIDED = {"train": 0.7, "choose": 0.1, "report": 0.2}
"""Shares of a validation file that has to serve for all three."""
FEW = 32
"""Rows that a few-shot run learns from, and as many that it chooses by (Schick and Schütze 2021, arXiv 2009.07118)."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The labelled rows of one task.

    Args:
        train: To learn from.
        choose: To choose by; none where nothing is held out.
        report: To report on.
        origin: In words, where each of them came from.
    """

    train: list[Any]
    choose: list[Any]
    report: list[Any]
    origin: dict[str, str] = field(default_factory=dict)


def default_folders() -> list[Path]:
    """The folders of published rows under ``CYPHER_DATA``.

    Raises:
        ConfigError: There are none.
    """
    root = os.environ.get("CYPHER_DATA")
    found = [Path(root) / name for name in ("superglue_full", "superglue_fewshot32")] if root else []
    if not any(folder.is_dir() for folder in found):
        raise ConfigError(
            "no data was named", needed="a folder with BoolQ, CB, COPA, …", change="give it with --data DIR"
        )
    return [folder for folder in found if folder.is_dir()]


def find_file(folders: Sequence[Path], task: BenchmarkTask, stem: str) -> Path | None:
    """``TASK/STEM.jsonl``, plain or gzipped, in the first of the folders that has the task; ``None`` if it has none."""
    for folder in folders:
        inside = folder / task.name
        if inside.is_dir():
            names = (f"{stem}.jsonl", f"{stem}.jsonl.gz")
            return next((inside / name for name in names if (inside / name).is_file()), None)
    return None


def find_test_file(folders: Sequence[Path], task: BenchmarkTask) -> Path | None:
    """The file whose rows a submission answers; the diagnostics' is published under their own name."""
    return find_file(folders, task, "test") or find_file(folders, task, task.name)


def task_parts(folders: Sequence[Path], task: BenchmarkTask, *, few_shot: bool = False, hold_out: bool = True) -> Parts:
    """Divide the rows of one task.

    - ``train`` and ``val``: a part of ``train`` chooses, ``val`` is reported on.
    - ``train`` and ``dev32``, a few-shot set: ``dev32`` chooses if there is a ``val`` to report on; if there is none,
      a part of ``train`` chooses and ``dev32`` is reported on.
    - ``val`` alone, where the task allows it: divided in three, or in two where nothing is held out; the rows that are
      reported on are the same.

    Rows about one text stay together, and a row's part depends on that text alone.

    Args:
        folders: Of data; the first that has the task's folder is taken.
        task: Which one.
        few_shot: Learn from :data:`FEW` rows and choose by as many.
        hold_out: Whether a part of the rows to learn from chooses; otherwise all of them are learnt from. Rows of a
            file of their own choose in either case, and so does a part of the rows of a few-shot run.

    Raises:
        DataError: A file that is needed is missing, cannot be read, or has rows without a label.
    """
    if not any((folder / task.name).is_dir() for folder in folders):
        raise DataError(
            f"{task.name}: there is no folder {' or '.join(str(folder / task.name) for folder in folders)}",
            needed="the task's JSONL files",
            change="name the folder that has it with --data",
        )
    read = {}
    for stem in ("train", "dev32", "val"):
        path = find_file(folders, task, stem)
        if path is not None:
            read[stem] = _labelled(task, path)
    if "train" not in read:
        parts = _from_validation(folders, task, read, hold_out=hold_out or few_shot)
    elif "val" in read and "dev32" in read:
        origin = {"train": "train", "choose": "dev32", "report": "val"}
        parts = Parts(train=read["train"], choose=read["dev32"], report=read["val"], origin=origin)
    elif "val" in read and not (hold_out or few_shot):
        origin = {"train": "train", "choose": "nothing", "report": "val"}
        parts = Parts(train=read["train"], choose=[], report=read["val"], origin=origin)
    elif "val" in read or "dev32" in read:
        report = "val" if "val" in read else "dev32"
        n_rows = len(read["train"])
        share = CHOOSING if n_rows >= SMALL else CHOOSING_OF_SMALL if n_rows > 2 * FEW else CHOOSING_OF_FEW
        divided = divide(read["train"], {"train": 1 - share, "choose": share})
        origin = {
            "train": f"train, {1 - share:.0%} by hash",
            "choose": f"train, {share:.0%} by hash",
            "report": report,
        }
        parts = Parts(train=divided["train"], choose=divided["choose"], report=read[report], origin=origin)
    else:
        raise _missing(folders, task, "val.jsonl")
    if few_shot:
        parts = Parts(
            train=[_one_question(row) for row in parts.train[:FEW]],
            choose=[_one_question(row) for row in parts.choose[:FEW]],
            report=parts.report,
            origin={**parts.origin, "few_shot": f"the first {FEW} rows to learn from and to choose by"},
        )
    for name in ("train", "choose", "report"):
        if not getattr(parts, name) and parts.origin[name] != "nothing":
            raise DataError(f"{task.name}: no rows to {name} by", needed="more rows, or more texts that differ")
    return parts


def _one_question(row: Any) -> Any:
    """A passage of MultiRC with its first question alone: a row of a few-shot run is one question."""
    return replace(row, questions=row.questions[:1]) if isinstance(row, MultiRcRow) else row


def divide(rows: Sequence[Any], fractions: dict[str, float]) -> dict[str, list[Any]]:
    """Rows by part, texts kept whole."""
    parts: dict[str, list[Any]] = {name: [] for name in fractions}
    for row in rows:
        parts[assign(group_of(row), fractions=fractions, salt="superglue")].append(row)
    return parts


def _from_validation(
    folders: Sequence[Path], task: BenchmarkTask, read: dict[str, list[Any]], *, hold_out: bool
) -> Parts:
    if not task.validation_only or "val" not in read:
        raise _missing(folders, task, "train.jsonl")
    divided = divide(read["val"], DIVIDED)
    origin = {name: f"val, {share:.0%} by hash" for name, share in DIVIDED.items()}
    if hold_out:
        return Parts(**divided, origin=origin)
    origin |= {"train": f"val, {DIVIDED['train'] + DIVIDED['choose']:.0%} by hash", "choose": "nothing"}
    return Parts(train=divided["train"] + divided["choose"], choose=[], report=divided["report"], origin=origin)


def _labelled(task: BenchmarkTask, path: Path) -> list[Any]:
    rows = read_rows(task, path)
    without = sum(not is_labelled(row) for row in rows)
    if without:
        raise DataError(f"{path}: {without} of {len(rows)} rows have no label", needed="labelled rows in this file")
    return rows


def _missing(folders: Sequence[Path], task: BenchmarkTask, name: str) -> DataError:
    folder = next(folder / task.name for folder in folders if (folder / task.name).is_dir())
    here = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return DataError(f"{folder} has no {name} (there is {here})", needed="train.jsonl and val.jsonl, plain or .gz")
