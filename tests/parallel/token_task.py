"""Three families of tiny models, and a task that all of them can learn: to say which token comes next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cypher.config import ParallelPlan, TrainConfig
from cypher.data.batch import Batch, pad_inputs
from cypher.layers.token_sum import Losses, TokenSum
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Encoded, Head, Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig
from cypher.parallel.engine import Engine, Portion
from cypher.parallel.gather import whole_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import World, joined
from cypher.train.optimiser import build_optimiser
from cypher.train.step import cut, seed_step, train_step
from cypher.train.task import Task

FAMILIES = ("encoder", "decoder", "encoder_decoder")
VOCABULARY = 67  # odd, so that no number of processes divides it
LEARNING_RATE = 1e-3


def model_of(family: str, *, tied: bool = True, dropout: float = 0.0, decoder_blocks: int = 2) -> Model:
    """A model of four blocks and four heads, the same in every process."""
    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocabulary_size": VOCABULARY, "width": 32, "n_heads": 4, "inner_width": 64,
        "dropout": dropout, "attention_dropout": dropout,
    }  # fmt: skip
    model: Model
    if family == "encoder":
        model = Bert(BertConfig(**sizes, n_layers=4, with_pooler=False, with_prediction=True))
    elif family == "decoder":
        model = Llama(LlamaConfig(**sizes, n_layers=4, n_key_value_heads=4, is_tied=tied))
    else:
        blocks = {"n_encoder_layers": 4 - decoder_blocks, "n_decoder_layers": decoder_blocks}
        model = Seq2Seq(Seq2SeqConfig(**sizes, **blocks, style="pre"))
    # What is drawn from N(0, 1) would make gradients so small elsewhere that nothing could be compared.
    for name, parameter in model.named_parameters():
        if "token" in name or "position" in name or "segment" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


class TokenTask(Task[Any, Any, Any]):
    """Which token comes next; an encoder that sees it learns to copy it from its right."""

    kind, metric = "tokens", "correct"

    def head(self, model: Model) -> Head:
        return model.language_head()

    def encode(self, row: list[int], *, index: int) -> list[tuple[list[int], int]]:
        return [(row, index)]

    def length(self, example: tuple[list[int], int]) -> int:
        return len(example[0])

    def collate(self, examples: Sequence[tuple[list[int], int]]) -> Batch:
        inputs = pad_inputs([row for row, _ in examples], pad_id=0)
        source = pad_inputs([row[::-1][: len(row) // 2 + 1] for row, _ in examples], pad_id=0)
        following = torch.cat([inputs.token_ids[:, 1:], torch.zeros_like(inputs.token_ids[:, :1])], 1)
        rows = tuple(index for _, index in examples)
        return Batch(inputs=replace(inputs, source=source), targets={"following": following}, rows=rows)

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"tokens": int((batch.targets["following"] > 0).sum())}

    def losses(self, head: Head, encoded: Encoded, batch: Batch) -> Losses:
        logits: Tensor = head(encoded).float()
        following = batch.targets["following"]
        wanted = following.where(following > 0, -100)
        total = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum")
        return {"tokens": TokenSum(total=total, count=self.counts(batch)["tokens"])}

    def predict(self, model: HeadedModel, rows: Sequence[list[int]]) -> list[int]:
        batches = [self.collate([(row, index)]) for index, row in enumerate(rows)]
        return [int(model(batch.inputs)[0][0, -1].argmax()) for batch in batches]

    def score(self, rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        return {"correct": sum(row[-1] == found for row, found in zip(rows, predictions, strict=True)) / len(rows)}

    def calibrate(self, rows: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Any]:
        return {}


def rows_of(step: int, *, rows: int = 8) -> list[list[int]]:
    """Rows of a step, of unequal lengths within it and from step to step."""
    draw = random.Random(f"rows/{step}")
    return [[draw.randrange(1, VOCABULARY) for _ in range(draw.randint(4, 9 + 2 * step))] for _ in range(rows)]


def portions_of(task: TokenTask, rows: Sequence[list[int]], world: World, parts: int) -> list[Portion]:
    """This process's micro-batches of a step."""
    examples = [(row, index) for index, row in enumerate(rows)]
    return [
        Portion(batch=task.collate(part), is_ghost=ghost)
        for part, ghost in cut(examples, copies=world.plan.dp, copy=world.copy, parts=parts)
    ]


def learn(engine: Engine, *, steps: int, rows: int = 8, accumulation: int = 1, seed: int = 0) -> list[float]:
    """Losses of some steps."""
    task, world = TokenTask(), engine.world
    optimiser = build_optimiser(engine, TrainConfig(learning_rate=LEARNING_RATE))
    losses = []
    for step in range(steps):
        engine.headed.train()
        seed_step(seed=seed, step=step, world=world)
        engine.headed.model.begin_step(seed=seed, step=step)
        parts = accumulation * engine.parts if world.plan.world > 1 else 1
        portions = portions_of(task, rows_of(step, rows=rows), world, parts)
        losses.append(train_step(engine, task, portions, optimiser, rate=1.0, clip_norm=1.0))
    return losses


def curve(
    text: str, family: str, steps: int = 8, rows: int = 8, tied: bool = True
) -> tuple[list[float], dict[str, Tensor], list[int]]:
    """Losses of some steps under a plan, the weights after them in the main process, and predictions."""
    with joined(ParallelPlan.parse(text)) as world:
        model = model_of(family, tied=tied)
        engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
        losses = learn(engine, steps=steps, rows=rows)
        engine.headed.eval()
        found = engine.predict(TokenTask().predict, rows_of(99, rows=5))
        return losses, whole_tensors(engine.trained, world), found
