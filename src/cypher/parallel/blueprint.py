"""A model to be planned for, without memory for its weights: of a recipe, of the catalogue, or by its sizes alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.methods import adapter_of
from cypher.config import Recipe
from cypher.errors import ModelError
from cypher.hub.download import FetchProgress
from cypher.hub.fetch import resolve
from cypher.hub.tokenizer import load_tokenizer
from cypher.models.fresh import outline_fresh_model
from cypher.models.headed import HeadedModel
from cypher.models.load import READ_FORMATS, outline_model
from cypher.models.model import Encoded, Head, Model
from cypher.models.sizes import preset_model, presets
from cypher.parallel.activations import Workload

# Tasks whose head predicts tokens by the model's own weights; heads of other tasks are too small to matter.
_OVER_VOCABULARY = ("mask_lm", "causal_lm", "translate")


class SmallHead(Head):
    """Stands for the head of a task with labels, whose number the data says."""

    def forward(self, encoded: Encoded) -> Tensor:
        """Hidden states as they are: nothing runs on the meta device."""
        return encoded.hidden


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What is planned for.

    Args:
        headed: On the meta device, with adapters and what is frozen.
        batch_size: Rows of a step; ``None`` where nothing says so.
        sequence_length: Most tokens of a row.
        accumulation: Micro-batches of a step.
        compute: Number format of the matrix products; ``None`` where the machine is to choose.
    """

    headed: HeadedModel
    batch_size: int | None = None
    sequence_length: int
    accumulation: int = 1
    compute: str | None = None

    def work(self, *, world: int, batch_size: int | None = None, sequence_length: int | None = None) -> Workload:
        """What a step is to work on.

        Args:
            world: Number of processes; where nothing else says how many rows there are, twice as many.
            batch_size: Rows, instead of the recipe's.
            sequence_length: Tokens, likewise.
        """
        return Workload(
            batch_size=batch_size or self.batch_size or 2 * world,
            sequence_length=sequence_length or self.sequence_length,
            accumulation=self.accumulation,
            compute="fp32" if self.compute == "fp32" else "bf16",
        )


def blueprint(name: str, *, progress: FetchProgress | None = None) -> Blueprint:
    """Outline a model.

    Args:
        name: Path of a recipe; a name of :func:`cypher.models.sizes.presets`; or a name as for
            :func:`cypher.hub.resolve`.
        progress: Told the bytes, if the model has to be fetched.

    Raises:
        ConfigError: The recipe cannot be read.
        ModelError: The model cannot be found or read.

    Example:
        >>> blueprint("llama-10b").sequence_length
        4096
    """
    if name.endswith(".toml"):
        return _of_recipe(Recipe.load(Path(name)), progress)
    model = preset_model(name) if name in presets() else outline_model(name, progress=progress)[0]
    return Blueprint(headed=HeadedModel(model, _head(model)), sequence_length=model.max_positions or 512)


def _of_recipe(recipe: Recipe, progress: FetchProgress | None) -> Blueprint:
    if recipe.model.fresh is not None:
        model = outline_fresh_model(recipe.model.fresh)
    else:
        model, _ = outline_model(recipe.model.name, progress=progress)
    if recipe.adapter is not None:
        tokenizer = None
        if recipe.model.fresh is None:
            tokenizer = load_tokenizer(resolve(recipe.model.name, formats=READ_FORMATS))
        with torch.device("meta"):
            adapter_of(recipe.adapter, tokenizer=tokenizer).attach(model, "planned")
        freeze_all_but(model, "planned")
    predicts = recipe.task.kind in _OVER_VOCABULARY
    return Blueprint(
        headed=HeadedModel(model, _head(model) if predicts else SmallHead()),
        batch_size=recipe.train.batch_size,
        sequence_length=recipe.task.max_length,
        accumulation=recipe.train.accumulation,
        compute=recipe.precision.compute,
    )


def _head(model: Model) -> Head:
    """Of the language, where the weights have one."""
    try:
        return model.language_head()
    except ModelError:
        return SmallHead()
