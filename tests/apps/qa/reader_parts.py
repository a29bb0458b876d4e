"""A tiny reader with random weights, saved and loaded as a trained one is."""

from __future__ import annotations

from pathlib import Path

import torch

from cypher.adapters.lora import Lora
from cypher.apps.qa.reader import Reader
from cypher.config import ExtractSpanConfig, LoraConfig
from cypher.models.headed import HeadedModel
from cypher.models.load import load_model
from cypher.tasks.calibration import Calibration
from cypher.tasks.extract_span import ExtractSpan
from cypher.tasks.reader_folder import SpanReader, load_reader, save_reader


def write_reader(folder: Path, model: Path, *, threshold: float = -1e9, max_length: int = 64) -> Path:
    """A reader folder on a tiny encoder; by its threshold it always answers."""
    loaded = load_model(str(model))
    config = ExtractSpanConfig(max_length=max_length, stride=12, max_question_tokens=20, max_answer_tokens=5)
    task = ExtractSpan(config, tokenizer=loaded.tokenizer, special=loaded.special, segments=loaded.uses_segment_ids)
    adapter = LoraConfig(rank=2)
    Lora(adapter).attach(loaded.model, "tiny")
    head = task.head(loaded.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for name, parameter in [*loaded.model.named_parameters(), *head.named_parameters()]:
            if "deltas" in name or "scores" in name:
                torch.nn.init.normal_(parameter, std=0.05 if "deltas" in name else 0.5)
    calibration = Calibration(scale=0.3, bias=-0.2, threshold=threshold)
    reader = SpanReader(model=HeadedModel(loaded.model, head), task=task, calibration=calibration, loaded=loaded)
    save_reader(folder, reader, adapter_name="tiny", adapter=adapter, model_name=str(model))
    return folder


def tiny_reader(folder: Path, *, max_answer_tokens: int | None = None) -> Reader:
    return Reader(load_reader(folder), precision="fp32", max_answer_tokens=max_answer_tokens)
