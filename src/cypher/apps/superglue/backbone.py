"""One pre-trained model in memory that every task borrows, with an adapter and a head of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cypher.adapters.adapter import Adapter, freeze_all_but
from cypher.adapters.methods import adapter_of
from cypher.apps.superglue.forms import Objective, objective
from cypher.config import Recipe, supports
from cypher.config.compare import CompareConfig
from cypher.config.judge_candidates import JudgeCandidatesConfig
from cypher.config.section import parse
from cypher.errors import ConfigError
from cypher.layers.precision import fastest_precision
from cypher.models.load import LoadedModel, load_model
from cypher.train.task import HeadedModel

# The name under which a task's adapter is attached.
ADAPTER = "task"


def adapter_values(name: str) -> dict[str, Any] | None:
    """The ``[adapter]`` section for the name of a method; ``None`` for ``none``, which trains every weight.

    LoRA goes on all linear layers with rank 32: with a frozen encoder this small, rank is cheap.
    """
    if name == "none":
        return None
    if name == "lora":
        return {"method": "lora", "rank": 32, "alpha": 32.0}
    return {"preset": name}


class Backbone:
    """The model, and whoever borrows it.

    Args:
        model: Name of the weights.
        adapter: Name of the method, or ``none``.

    Raises:
        ConfigError: No adapter is called so, or it does not go with the model.
        ModelError: The weights cannot be found.
    """

    def __init__(self, model: str, adapter: str) -> None:
        values: dict[str, Any] = {"name": "superglue", "model": {"name": model}, "data": {"train": ["superglue"]}}
        if (section := adapter_values(adapter)) is not None:
            values["adapter"] = section
        recipe: Recipe = parse(Recipe, values, where=f"--adapter {adapter}")
        self.name = model
        self.adapter = recipe.adapter
        self.dtype = torch.bfloat16 if fastest_precision() == "bf16" else torch.float32
        self._loaded: LoadedModel | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model, loaded when it is first asked for."""
        if self._loaded is None:
            self._loaded = load_model(self.name)
            architecture = self._loaded.architecture.name
            if architecture != "bert":
                raise ConfigError(
                    f"{self.name} is a {architecture}",
                    needed="an encoder that reads whole texts, such as minilm: these tasks mark words and texts in it",
                )
            method = "none" if self.adapter is None else self.adapter.method
            if not (support := supports(model=architecture, adapter=method)):
                raise ConfigError(f"{architecture} with {method} does not work: {support.reason}")
        return self._loaded

    @contextmanager
    def lent(
        self, config: CompareConfig | JudgeCandidatesConfig, *, seed: int
    ) -> Iterator[tuple[HeadedModel, Objective]]:
        """The model with a fresh adapter and head; what was attached is gone again afterwards.

        Args:
            config: Of the objective.
            seed: Of the initial weights.
        """
        loaded = self.loaded
        torch.manual_seed(seed)
        task = objective(config, loaded)
        try:
            if self.adapter is not None:
                adapter_of(self.adapter, tokenizer=loaded.tokenizer).attach(loaded.model, ADAPTER)
                freeze_all_but(loaded.model, ADAPTER)
            else:
                loaded.model.requires_grad_(True)
            head: Any = task.head(loaded.model)
            yield HeadedModel(loaded.model, head), task
        finally:
            if self.adapter is None:
                self._loaded = None  # every weight was changed: the next one reads them anew
            else:
                Adapter.detach(loaded.model, ADAPTER)
