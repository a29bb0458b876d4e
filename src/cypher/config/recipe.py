"""The recipe: one TOML file that a run can be repeated from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from cypher import toml
from cypher.config.adapter import AdapterConfig
from cypher.config.arrangement import ArrangementConfig
from cypher.config.classify import ClassifyConfig
from cypher.config.data import DataConfig
from cypher.config.extract_span import ExtractSpanConfig
from cypher.config.model import ModelConfig
from cypher.config.parallel import ParallelPlan
from cypher.config.precision import PrecisionConfig
from cypher.config.section import Section, parse
from cypher.config.task import TaskConfig
from cypher.config.train import TrainConfig
from cypher.errors import ConfigError

# Of a run: a folder of its own under ``runs/``, hidden to nobody and never taken for a flag.
_NAME = r"^\w[\w.-]*$"


class Recipe(Section):
    """Everything a run depends on.

    Example:
        >>> recipe = Recipe.from_toml('data = { train = ["squadshifts/new_wiki"] }', overrides=["train.epochs=1"])
        >>> recipe.train.epochs, recipe.model.name
        (1, 'minilm')
    """

    name: str = Field(default="run", pattern=_NAME)
    """Its folder under ``runs/``: letters, digits, "_", "-" and ".", and no "." or "-" first."""
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig | None = None
    """Absent: every weight of the model is trained."""
    arrangement: ArrangementConfig | None = None
    """Absent: the adapter is alone, in every block."""
    precision: PrecisionConfig = PrecisionConfig()
    task: TaskConfig = ExtractSpanConfig()
    data: DataConfig
    train: TrainConfig = TrainConfig()
    parallel: ParallelPlan = ParallelPlan()

    @model_validator(mode="after")
    def _data_fits_task(self) -> Recipe:
        if self.data.unanswerable and self.task.kind != "extract_span":
            raise ValueError(f"data.unanswerable makes pairs for extract_span, not for {self.task.kind}: set it to 0")
        if self.task.kind == "extract_span" and (self.data.columns or self.data.skip_bad_rows):
            raise ValueError("extract_span trains on SQuAD's JSON: data.columns and data.skip_bad_rows are for tables")
        if self.data.sampling == "balanced":
            if not isinstance(self.task, ClassifyConfig) or self.task.multi_label:
                raise ValueError("data.sampling = balanced needs a task of kind classify with one label a row")
            if self.task.class_weights != "none" or self.task.logit_adjustment:
                raise ValueError(
                    "data.sampling = balanced beside class_weights or logit_adjustment corrects twice for the same "
                    "thing: choose one"
                )
        return self

    @model_validator(mode="after")
    def _batch_fits_plan(self) -> Recipe:
        plan, batch_size = self.parallel, self.train.batch_size
        parts = plan.dp * plan.pipeline_microbatches
        if plan.world > 1 and batch_size % parts:
            raise ValueError(
                f"train.batch_size = {batch_size} cannot be cut into {parts} equal parts (dp {plan.dp} x "
                f"{plan.pipeline_microbatches} micro-batches): choose a multiple of {parts}"
            )
        return self

    @model_validator(mode="after")
    def _arrangement_has_something_to_train(self) -> Recipe:
        arrangement = self.arrangement
        if arrangement is None:
            return self
        if arrangement.fuse and self.adapter is not None:
            raise ValueError(
                "arrangement.fuse trains an attention between adapters that stay as they are: drop [adapter], or train "
                "it in a run of its own and fuse that"
            )
        if not arrangement.fuse and self.adapter is None:
            raise ValueError("[arrangement] arranges adapters, and none is trained: add [adapter], or arrangement.fuse")
        if self.model.fresh is not None and (arrangement.fuse or arrangement.stack_on is not None):
            raise ValueError(
                "model.fresh starts from random weights, and adapters fit the weights they were trained on"
            )
        return self

    @classmethod
    def load(cls, path: Path | str, *, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe file.

        Args:
            path: The TOML file; its stem is the run's name unless the file says otherwise.
            overrides: ``section.key=value`` each, the value in TOML (bare words are taken as strings).

        Raises:
            ConfigError: The file is missing or not TOML, a key is unknown, or a value cannot work.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"recipe {path} cannot be read ({error})", change="give the path of a TOML file"
            ) from None
        return cls.from_toml(text, overrides=overrides, where=str(path), name=path.stem)

    @classmethod
    def from_toml(
        cls, text: str, *, overrides: Sequence[str] = (), where: str = "recipe", name: str | None = None
    ) -> Recipe:
        """Read a recipe from TOML text; arguments and errors as in :meth:`load`."""
        try:
            values: dict[str, Any] = toml.loads(text)
        except toml.TOMLDecodeError as error:
            raise ConfigError(f"{where} is not TOML ({error})", change="mend that line") from None
        for override in overrides:
            _apply(values, override)
        if name is not None and "name" not in values:
            if not re.fullmatch(_NAME, name):
                raise ConfigError(
                    f"{where}: its file's name cannot be the name of a run",
                    needed='letters, digits, "_", "-" and "."',
                    change='rename it, or add name = "…"',
                )
            values["name"] = name
        recipe: Recipe = parse(cls, values, where=where)
        return recipe

    def to_toml(self) -> str:
        """The resolved recipe, defaults included; ``Recipe.from_toml`` gives an equal one back."""
        values = self.model_dump(mode="json", exclude_none=True)
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines = [f"{key} = {_toml(value)}" for key, value in values.items() if key not in tables]
        for key, table in tables.items():
            lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in table.items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """One value on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    # TOML's escapes are JSON's but for halves of surrogate pairs and the last control character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    """A key of a table; a person may have named it (data.columns), and then it may need quotes."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else str(_toml(name))


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``section.key=value`` in plain values."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}", needed="section.key=value", change="for example --set train.epochs=2")
    try:
        value = toml.loads(f"value = {text}")["value"]
    except toml.TOMLDecodeError:
        value = text
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {part} is a value, not a table", change="give section.key=value")
    table[parts[-1]] = value
