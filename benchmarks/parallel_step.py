"""Training steps of one process, of two that share the rows, and of a loop written by hand: tokens a second, in turn.

A BERT of MiniLM's size with random weights and the head of masked language modelling, all of it trained. Every process
has one thread and as many rows, so two processes do twice the work. The loop by hand has no engine; it runs in the same
process as the undivided side, because two processes differ by more than an engine costs.

Example: python benchmarks/parallel_step.py --plan dp=2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from interleave import cpu_flags

ROWS, TOKENS, STEPS = 8, 128, 3


def works(plan_text: str, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """Gives a function that does some steps and says the last loss; yields once, while the processes are together."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from cypher.config import ParallelPlan, TrainConfig
    from cypher.data.batch import Batch, Inputs
    from cypher.layers.token_sum import TokenSum
    from cypher.models.bert import Bert, BertConfig
    from cypher.models.headed import HeadedModel
    from cypher.models.model import Encoded, Head
    from cypher.parallel.engine import Portion
    from cypher.parallel.parallelise import parallelise
    from cypher.parallel.world import joined
    from cypher.train.optimiser import build_optimiser
    from cypher.train.step import train_step
    from cypher.train.task import Task

    class Next(Task[Any, Any, Any]):
        def counts(self, batch: Batch) -> dict[str, int]:
            return {"kind": len(batch.rows)}

        def losses(self, head: Head, encoded: Encoded, batch: Batch) -> dict[str, TokenSum]:
            total = F.cross_entropy(head(encoded), batch.targets["kind"], reduction="sum")
            return {"kind": TokenSum(total=total, count=len(batch.rows))}

    class First(Head):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, 8)

        def forward(self, encoded: Encoded) -> torch.Tensor:
            scores: torch.Tensor = self.linear(encoded.hidden[:, 0].float())
            return scores

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"width": options.width, "n_layers": 6, "n_heads": 12, "inner_width": 4 * options.width}
    # A table as large as MiniLM's would make a benchmark of the table: its gradient is as large as all blocks together.
    model = Bert(BertConfig(vocabulary_size=4096, dropout=0, attention_dropout=0, with_pooler=False, **sizes))
    headed = HeadedModel(model, First(options.width)).train()
    model.prepare_training(torch.bfloat16 if options.precision == "bf16" else torch.float32)
    generator = torch.Generator().manual_seed(int(os.environ.get("RANK", "0")))

    def batch() -> Batch:
        ids = torch.randint(5, 4096, (ROWS, TOKENS), generator=generator)
        inputs = Inputs(token_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
        return Batch(inputs=inputs, targets={"kind": ids[:, 1] % 8}, rows=tuple(range(ROWS)))

    if plan_text == "by hand":
        optimiser = torch.optim.AdamW(headed.parameters(), lr=1e-4, fused=True)

        def by_hand() -> float:
            loss = 0.0
            for _ in range(STEPS):
                made = batch()
                logits, _ = headed(made.inputs)
                total = F.cross_entropy(logits, made.targets["kind"])
                total.backward()
                nn.utils.clip_grad_norm_(headed.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                loss = total.item()
            return loss

        yield by_hand
        return
    with joined(ParallelPlan.parse(plan_text)) as world:
        engine = parallelise(headed, world)
        divided = build_optimiser(engine, TrainConfig(learning_rate=1e-4))

        def steps() -> float:
            loss = 0.0
            for _ in range(STEPS):
                portions = [Portion(batch=batch()) for _ in range(engine.parts)]
                loss = train_step(engine, Next(), portions, divided, rate=1.0, clip_norm=1.0)
            return loss

        yield steps


def process(pipe: Connection, environment: dict[str, str], ways: Sequence[str], options: argparse.Namespace) -> None:
    """Works in the way it is told, until it is told none."""
    os.environ.update(environment)
    open_works = {way: works(way, options) for way in ways}
    work = {way: next(opened) for way, opened in open_works.items()}
    for first in work.values():
        first()
    pipe.send(0.0)
    while way := pipe.recv():
        started = time.perf_counter()
        work[way]()
        pipe.send(time.perf_counter() - started)
    for opened in open_works.values():
        next(opened, None)


@contextmanager
def side(ways: Sequence[str], processes: int, options: argparse.Namespace) -> Iterator[Callable[[str], float]]:
    """Processes that are ready; gives a function that lets all of them work and says how long the slowest took."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    pipes, started = [], []
    for rank in range(processes):
        here, there = context.Pipe()
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GLOO_SOCKET_IFNAME": "lo"}
        worker = context.Process(target=process, args=(there, environment, ways, options), daemon=True)
        worker.start()
        pipes.append(here)
        started.append(worker)
    for pipe in pipes:
        pipe.recv()

    def run(way: str) -> float:
        for pipe in pipes:
            pipe.send(way)
        return max(pipe.recv() for pipe in pipes)

    yield run
    for pipe in pipes:
        pipe.send("")
    for worker in started:
        worker.join(timeout=60)


def main() -> None:
    """Compare, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="dp=2", help="of the divided side (default dp=2)")
    parser.add_argument("--pairs", type=int, default=7, help="runs of each side (default 7)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the products")
    parser.add_argument("--width", type=int, default=384, help="of the model (default 384)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from cypher.config import ParallelPlan

    world = ParallelPlan.parse(options.plan).world
    times: dict[str, list[float]] = {"one": [], "by_hand": [], "divided": []}
    with side(["dp=1", "by hand"], 1, options) as whole, side([options.plan], world, options) as divided:
        for number in range(options.pairs):
            for name in ("one", "by_hand") if number % 2 else ("by_hand", "one"):
                times[name].append(whole("dp=1" if name == "one" else "by hand"))
            times["divided"].append(divided(options.plan))
            print(f"round {number + 1} of {options.pairs}", file=sys.stderr)
    tokens = ROWS * TOKENS * STEPS
    seconds = {name: median(taken) for name, taken in times.items()}
    copies = ParallelPlan.parse(options.plan).dp
    report: dict[str, Any] = {
        "benchmark": "parallel_step",
        "plan": options.plan,
        "precision": options.precision,
        "threads_per_process": 1,
        "tokens_per_s": {
            "one": round(tokens / seconds["one"]),
            "divided": round(tokens * copies / seconds["divided"]),
            "by_hand": round(tokens / seconds["by_hand"]),
        },
        "divided_over_one": round(copies * seconds["one"] / seconds["divided"], 3),
        "one_over_by_hand_seconds": round(
            median(a / b for a, b in zip(times["one"], times["by_hand"], strict=True)), 3
        ),
        "cpu": cpu_flags(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
