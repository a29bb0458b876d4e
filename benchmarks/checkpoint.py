"""How long a training loop stands still for a checkpoint: written at once, and copied to be written meanwhile.

A BERT of 100 MB with AdamW's moments, 300 MB in all, in one process. Beside ours stands the writer of
torch.distributed.checkpoint, whose files ours are.

Example: python benchmarks/checkpoint.py --repeats 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from cypher.config import ParallelPlan, TrainConfig
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.parallel.checkpoint import Saving, load, save
from cypher.parallel.optimiser_state import optimiser_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import World
from cypher.train.optimiser import build_optimiser


def tensors_of_a_run() -> dict[str, torch.Tensor]:
    """Weights and moments after one step."""
    sizes = {"vocabulary_size": 30522, "width": 384, "n_layers": 7, "n_heads": 12, "inner_width": 1536}
    model = Bert(BertConfig(**sizes, with_pooler=False, with_prediction=True))
    engine = parallelise(HeadedModel(model, model.language_head()))
    optimiser, named = build_optimiser(engine, TrainConfig()), engine.trained
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    weights = {f"model.{name}": parameter.detach() for name, parameter in named.items()}
    return weights | optimiser_tensors(optimiser, named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8)
    repeats = parser.parse_args().repeats
    tensors, alone = tensors_of_a_run(), World(plan=ParallelPlan())
    seconds: dict[str, list[float]] = {kind: [] for kind in ("at_once", "meanwhile", "torch_writer", "read")}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            place = Path(folder) / str(number)
            start = time.perf_counter()
            save(place / "at_once", tensors, {}, alone)
            seconds["at_once"].append(time.perf_counter() - start)
            start = time.perf_counter()
            saving = Saving(place / "meanwhile", tensors, {}, alone)
            stopped = time.perf_counter() - start
            while saving.is_writing:
                time.sleep(0.01)
            start = time.perf_counter()
            saving.finish()
            seconds["meanwhile"].append(stopped + time.perf_counter() - start)
            writer = dcp.HuggingFaceStorageWriter(str(place / "torch"), save_distributed=True)
            start = time.perf_counter()
            dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
            seconds["torch_writer"].append(time.perf_counter() - start)
            start = time.perf_counter()
            load(place / "at_once", tensors, alone)
            seconds["read"].append(time.perf_counter() - start)
    weights = sum(value.nbytes for name, value in tensors.items() if name.startswith("model."))
    print(
        json.dumps(
            {
                "weights_mb": round(weights / 1e6),
                "saved_mb": round(sum(value.nbytes for value in tensors.values()) / 1e6),
                "milliseconds_stopped": {kind: round(1000 * statistics.median(all_)) for kind, all_ in seconds.items()},
                "repeats": repeats,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
