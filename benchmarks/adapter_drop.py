"""Eight adapters at once beside eight passes, and what leaving adapters out of lower blocks saves.

A BERT of six blocks of width 384 with bottlenecks (seq_bn), random weights. ``parallel`` is how many times as fast one
pass through Parallel of eight is as a pass through each, both with all weights laid out for inference in
``--precision`` and one row, by its tokens and by blocks whose adapters are left out; ``bound`` is what counting blocks
allows where a block costs the same in both. ``step`` and ``forward`` are times without the adapters of the first
blocks, over times with all, in fp32.

Example: python benchmarks/adapter_drop.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from interleave import cpu_flags

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import Parallel
from cypher.adapters.methods import adapter_of
from cypher.config import adapter_config
from cypher.data.batch import Inputs
from cypher.models.bert import Bert, BertConfig

BLOCKS, ADAPTERS = 6, 8


def made(adapters: int) -> Bert:
    """A model with as many adapters, called a0, a1 and so on."""
    torch.manual_seed(0)
    sizes = {"width": 384, "n_layers": BLOCKS, "n_heads": 12, "inner_width": 1536}
    model = Bert(BertConfig(vocabulary_size=30522, dropout=0, attention_dropout=0, with_pooler=False, **sizes))
    for number in range(adapters):
        adapter_of(adapter_config({"preset": "seq_bn"})).attach(model, f"a{number}")
    return model.eval()


def rows(batch: int, seq: int) -> Inputs:
    """Random tokens."""
    token_ids = torch.randint(1000, 30000, (batch, seq))
    return Inputs(token_ids=token_ids, attention_mask=torch.ones_like(token_ids, dtype=torch.bool))


def in_turn(works: dict[Any, Callable[[], object]], pairs: int) -> dict[Any, float]:
    """Median seconds of each, timed one after the other so that a machine's moods hit all alike."""
    times: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(pairs + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: median(taken[1:]) for name, taken in times.items()}


def parallel(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One pass through all beside a pass through each."""
    model, names = made(ADAPTERS), [f"a{number}" for number in range(ADAPTERS)]
    model.pack(options.precision)
    told = []
    for seq in (16, 32, 64, 128):
        for skipped in (0, 3, 5):
            given = rows(1, seq)

            def together(given: Inputs = given, skipped: int = skipped) -> None:
                activate(model, Parallel(*names), skipped_layers=range(skipped))
                model(given)

            def each(given: Inputs = given, skipped: int = skipped) -> None:
                for name in names:
                    activate(model, name, skipped_layers=range(skipped))
                    model(given)

            with torch.inference_mode():
                seconds = in_turn({"together": together, "each": each}, options.pairs)
            # The block with the first adapter runs once up to it, which is nearly its end.
            once = skipped + 1
            told.append(
                {
                    "tokens": seq,
                    "blocks_without": skipped,
                    "ratio": round(seconds["each"] / seconds["together"], 2),
                    "bound": round(ADAPTERS * BLOCKS / (once + ADAPTERS * (BLOCKS - once)), 2),
                    "ms": round(1000 * seconds["together"], 1),
                }
            )
    return told


def dropped(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A training step and a forward without the adapters of the first blocks."""
    model = made(1)
    freeze_all_but(model, "a0")
    model.prepare_training(torch.float32)
    model.lay_out_frozen()
    given = rows(16, 128)

    def step(skipped: int) -> None:
        activate(model, "a0", skipped_layers=range(skipped))
        model.train()(given).hidden[:, 0].square().sum().backward()
        model.zero_grad(set_to_none=True)

    def forward(skipped: int) -> None:
        activate(model, "a0", skipped_layers=range(skipped))
        with torch.inference_mode():
            model.eval()(given)

    works = {
        (kind.__name__, skipped): (lambda kind=kind, skipped=skipped: kind(skipped))
        for skipped in range(BLOCKS)
        for kind in (step, forward)
    }
    seconds = in_turn(works, options.pairs)
    return [
        {
            "blocks_without": skipped,
            **{kind: round(seconds[kind, skipped] / seconds[kind, 0], 2) for kind in ("step", "forward")},
        }
        for skipped in range(BLOCKS)
    ]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="counted runs of each (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of parallel (default bf16)")
    parser.add_argument("--only", choices=("parallel", "dropped"), help="one of the two parts (default both)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    told: dict[str, Any] = {"benchmark": "adapter_drop", "precision": options.precision}
    for part in (parallel, dropped):
        if options.only in (None, part.__name__):
            told[part.__name__] = part(options)
    print(json.dumps({**told, "threads": options.threads, "torch": torch.__version__, "flags": cpu_flags()}))


if __name__ == "__main__":
    main()
