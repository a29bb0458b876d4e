"""Plans that cannot work, each with its arithmetic and what to set instead; and those that can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strategies import STRATEGIES
from token_task import FAMILIES, model_of

from cypher.config import ParallelPlan
from cypher.errors import ConfigError
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.sizes import preset_model
from cypher.parallel.validate import refusals, validate

BERT = "bert-large"


def llama(**sizes: int) -> Model:
    with torch.device("meta"):
        given = {"width": 48, "n_layers": 4, "n_heads": 12, "n_key_value_heads": 4, "inner_width": 96} | sizes
        return Llama(LlamaConfig(vocabulary_size=50, **given))


@pytest.mark.parametrize(
    ("text", "model", "told"),
    [
        ("tp=3", preset_model(BERT), "n_heads = 16 with tp = 3: needs a number that 3 divides"),
        ("tp=6", llama(), "n_key_value_heads = 4 with tp = 6: needs a number that 6 divides"),
        ("tp=4", llama(inner_width=90), "inner_width = 90 with tp = 4: needs a number that 4 divides"),
        ("pp=32", preset_model(BERT), "24 blocks with pp = 32 and 1 stages a process: needs a block for each of 32"),
        ("pp=3,schedule=interleaved", llama(), "4 blocks with pp = 3 and 2 stages a process: needs a block for each"),
        ("dp=3", llama(), "train.batch_size = 32 with dp 3: needs a multiple of 3; set train.batch_size to 33"),
        (
            "dp=2,pp=2,microbatches=5",
            llama(),
            "train.batch_size = 32 with dp 2 x 5 micro-batches: needs a multiple of 10; set train.batch_size to 40",
        ),
        ("pp=4,microbatches=2", llama(), "parallel.microbatches = 2 with pp = 4 and schedule = 1f1b: needs one for"),
        ("pp=2,microbatches=2,schedule=dualpipe_v", llama(), "parallel.microbatches = 2 with pp = 2 and schedule = du"),
        (
            "pp=2,microbatches=5,schedule=interleaved",
            llama(),
            "parallel.microbatches = 5 with pp = 2 and schedule = interleaved: needs a multiple of its 2 rounds; set",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_arithmetic(text: str, model: Model, told: str):
    batch_size = 35 if "microbatches=5,schedule" in text else 32
    found = refusals(ParallelPlan.parse(text), model, batch_size=batch_size)
    assert any(str(refusal).startswith(told) for refusal in found), [str(refusal) for refusal in found]


@pytest.mark.parametrize(
    ("text", "task", "told"),
    [
        ("pp=2", {"whole_model": True}, "a task whose step needs the whole model, with pp = 2: needs pp = 1"),
        ("dp=2", {"whole_batch": True}, r"a task that compares the rows of a batch with each other, cut into 2 parts"),
        ("dp=2", {"accumulation": 3}, "train.batch_size = 32 with dp 2 x accumulation 3: needs a multiple of 6"),
    ],
)
def test_tasks_that_cannot_be_cut_are_refused(text: str, task: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        validate(ParallelPlan.parse(text), llama(), batch_size=32, **task)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_strategy_that_is_tested_is_possible(family: str):
    with torch.device("meta"):
        model = model_of(family)
    for texts in STRATEGIES.values():
        for text in texts:
            # V-shaped and interleaved pipelines of four processes need eight blocks, and the tiny models have four.
            validate(ParallelPlan.parse(text), model, batch_size=16)


def test_one_process_takes_any_batch():
    validate(ParallelPlan(), llama(), batch_size=7)
