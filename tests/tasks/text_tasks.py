"""Small models of every architecture with one tokenizer, and what tests of tasks on texts do with them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cypher.config import TrainConfig
from cypher.hub.tokenizer import load_tokenizer, special_tokens
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.seq2seq import Seq2Seq, Seq2SeqConfig
from cypher.tasks.text_sequence import TextReader
from cypher.train.optimiser import build_optimiser
from cypher.train.step import train_step
from cypher.train.task import Task

ARCHITECTURES = ("bert", "llama", "seq2seq")


def tiny_model(architecture: str, folder: Path) -> Model:
    """Random weights for the tokenizer in ``folder``; the same in every call."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocabulary_size": load_tokenizer(folder).get_vocab_size(),
        "width": 32,
        "n_heads": 4,
        "inner_width": 48,
    }
    model: Model
    if architecture == "bert":
        model = Bert(BertConfig(n_layers=2, dropout=0, attention_dropout=0, with_pooler=False, **sizes))
    elif architecture == "llama":
        model = Llama(LlamaConfig(n_layers=2, n_key_value_heads=2, max_positions=128, is_tied=True, **sizes))
    else:
        model = Seq2Seq(Seq2SeqConfig(n_encoder_layers=1, n_decoder_layers=2, **sizes))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def text_reader(architecture: str, folder: Path, max_length: int = 64) -> TextReader:
    return TextReader(
        tokenizer=load_tokenizer(folder),
        special=special_tokens(folder),
        segments=architecture == "bert",
        with_source=architecture == "seq2seq",
        max_length=max_length,
    )


def headed(task: Any, model: Model) -> HeadedModel:
    torch.manual_seed(1)
    return HeadedModel(model, task.head(model)).eval()


def gradients(task: Task[Any, Any, Any], model: HeadedModel, rows: Any, parts: int) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one step whose rows are cut into ``parts`` micro-batches of unequal size."""
    examples = [example for index, row in enumerate(rows) for example in task.encode(row, index=index)]
    cuts = [0, *sorted(n * n * len(examples) // parts**2 for n in range(1, parts)), len(examples)]
    batches = [task.collate(examples[a:b]) for a, b in pairwise(cuts) if b > a]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for group in optimiser.param_groups:
        group["peak"] = 1.0
    loss = train_step(model, task, batches, optimiser, rate=1.0, clip_norm=0.0)
    moved = [before[name] - parameter.detach() for name, parameter in model.named_parameters()]
    model.load_state_dict(before)
    return loss, moved


def learn(task: Task[Any, Any, Any], model: HeadedModel, rows: Any, *, steps: int, rate: float) -> None:
    optimiser = build_optimiser(model, TrainConfig(learning_rate=rate, weight_decay=0.0))
    examples = [example for index, row in enumerate(rows) for example in task.encode(row, index=index)]
    model.train()
    for _ in range(steps):
        train_step(model, task, [task.collate(examples)], optimiser, rate=1.0, clip_norm=1.0)
    model.eval()
