"""Training tokens per second with an adapter: Cypher's step beside the `adapters` library's, same weights, same rows.

Both train a bottleneck or LoRA and a small head on a BERT of six blocks of width 384 (random weights, no dropout) to
tell two kinds of rows apart, 16 rows of 128 tokens a step. The library runs in fp32, as its users have it on a
processor; ours in ``--precision``. Their losses, step by step, and the largest resident memory stand beside the speed.

Example: python benchmarks/adapter_step.py --adapter lora --precision bf16
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interleave import Worker, arguments, compare, report, serve

BATCH, SEQ, BLOCKS, WIDTH, HEADS, INNER, VOCABULARY = 16, 128, 6, 384, 12, 1536, 30522
LEARNING_RATE = 1e-3
ORACLES = Path(__file__).parents[1] / ".oracle-adapters" / "bin" / "python"


def rows(steps: int) -> tuple[Any, Any]:
    """Token ids ``(steps · BATCH, SEQ)``; a row's kind shows in one token of sixteen."""
    import torch

    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(1000, VOCABULARY, (steps * BATCH, SEQ), generator=generator)
    labels = torch.randint(0, 2, (steps * BATCH,), generator=generator)
    token_ids[:, 1::16] = 500 + labels.unsqueeze(1)
    return token_ids, labels


def our_model(adapter: str) -> tuple[Any, Any]:
    """A model with a fresh adapter, the same in every call."""
    import torch

    from cypher.adapters.adapter import freeze_all_but
    from cypher.adapters.methods import adapter_of
    from cypher.config import adapter_config
    from cypher.models.bert import Bert, BertConfig

    torch.manual_seed(0)
    sizes = {"width": WIDTH, "n_layers": BLOCKS, "n_heads": HEADS, "inner_width": INNER}
    model = Bert(BertConfig(vocabulary_size=VOCABULARY, dropout=0, attention_dropout=0, with_pooler=False, **sizes))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter_of(adapter_config({"preset": adapter})).attach(model, "mine")
    freeze_all_but(model, "mine")
    head = torch.nn.Linear(WIDTH, 2)
    return model, head


def save_weights(adapter: str, path: Path) -> None:
    """All weights by the peer's names, so that both begin alike."""
    from cypher.adapters.adapter import Adapter
    from cypher.hub.weights import write_safetensors
    from cypher.models.bert import NAME_MAP

    model, head = our_model(adapter)
    own = Adapter.parameters_of(model, "mine")
    weights = {NAME_MAP.to_theirs(name): value for name, value in model.named_parameters() if name not in own}
    for name, value in own.items():
        _, _, number, *place, _, _, layer, kind = name.replace(".deltas.mine.", ".deltas.mine.lora.").split(".")
        block = f"encoder.layer.{number}"
        if "attention" in place:
            theirs = f"{block}.attention.self.{place[1]}.loras.mine.lora_{'A' if kind == 'down' else 'B'}"
        else:
            theirs = f"{block}.output.adapters.mine.adapter_{layer}{'.0' if layer == 'down' else ''}.{kind}"
        weights[theirs] = value
    weights |= {f"head.{name}": value for name, value in head.named_parameters()}
    write_safetensors(path, {name: value.detach() for name, value in weights.items()})


def ours(options: argparse.Namespace) -> None:
    """Cypher's step over two micro-batches side by side."""
    import torch
    import torch.nn.functional as F

    from cypher.data.batch import Batch, Inputs, split_batch
    from cypher.layers.token_sum import TokenSum
    from cypher.models.headed import HeadedModel
    from cypher.models.model import Encoded, Head
    from cypher.train.step import threads_side_by_side, train_step
    from cypher.train.task import Task

    torch.set_num_threads(options.threads)
    token_ids, labels = rows(options.steps)

    class First(Head):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, encoded: Encoded) -> torch.Tensor:
            return self.linear(encoded.hidden[:, 0].float())

    class Kinds(Task[Any, Any, Any]):
        def counts(self, batch: Batch) -> dict[str, int]:
            return {"kind": len(batch.rows)}

        def losses(self, head: Head, encoded: Encoded, batch: Batch) -> dict[str, TokenSum]:
            total = F.cross_entropy(head(encoded), batch.targets["labels"], reduction="sum")
            return {"kind": TokenSum(total=total, count=len(batch.rows))}

    def work() -> dict[str, Any]:
        model, head = our_model(options.adapter)
        headed = HeadedModel(model, First(head)).train()
        model.prepare_training(torch.bfloat16 if options.precision == "bf16" else torch.float32)
        trained = [parameter for parameter in headed.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
        optimiser.param_groups[0]["peak"] = LEARNING_RATE
        parts = threads_side_by_side(headed)
        losses, started = [], time.perf_counter()
        for step in range(options.steps):
            batches = []
            for part in split_batch(range(step * BATCH, (step + 1) * BATCH), parts):
                ids = token_ids[part]
                inputs = Inputs(token_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
                batches.append(Batch(inputs=inputs, targets={"labels": labels[part]}, rows=tuple(part)))
            losses.append(train_step(headed, Kinds(), batches, optimiser, rate=1.0, clip_norm=0.0, side_by_side=parts))
        return _told(options, started, losses)

    serve(work, {"torch": torch.__version__})


def peer(options: argparse.Namespace) -> None:
    """The library, with a plain loop of torch around it."""
    import adapters
    import torch
    import transformers
    from safetensors.torch import load_file

    torch.set_num_threads(options.threads)
    token_ids, labels = rows(options.steps)
    weights = load_file(options.weights)

    def work() -> dict[str, Any]:
        settings = transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS,
            intermediate_size=INNER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        model = transformers.BertModel(settings, add_pooling_layer=False)
        adapters.init(model)
        model.add_adapter("mine", config=options.adapter)
        model.train_adapter("mine")
        head = torch.nn.Linear(WIDTH, 2)
        backbone = {name: value for name, value in weights.items() if not name.startswith("head.")}
        # The library holds the embedding under a second name as well, which is missing here.
        assert not model.load_state_dict(backbone, strict=False).unexpected_keys
        head.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("head.")})
        trained = [*(parameter for parameter in model.parameters() if parameter.requires_grad), *head.parameters()]
        optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
        losses, started = [], time.perf_counter()
        for step in range(options.steps):
            chosen = slice(step * BATCH, (step + 1) * BATCH)
            ids = token_ids[chosen]
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            loss = torch.nn.functional.cross_entropy(head(hidden[:, 0]), labels[chosen])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        return _told(options, started, losses)

    serve(
        work,
        {"torch": torch.__version__, "transformers": transformers.__version__, "adapters": adapters.__version__},
    )


def _told(options: argparse.Namespace, started: float, losses: list[float]) -> dict[str, Any]:
    return {
        "seconds": time.perf_counter() - started,
        "losses": [round(loss, 4) for loss in losses],
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Compare, and print one JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(peers_python=ORACLES)
    parser.add_argument("--adapter", choices=("seq_bn", "lora"), default="seq_bn", help="(default seq_bn)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours (default fp32)")
    parser.add_argument("--steps", type=int, default=12, help="of each run (default 12)")
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        {"ours": ours, "peer": peer}[options.worker](options)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_weights(options.adapter, path)
        shared = [__file__, *sys.argv[1:], "--weights", str(path), "--worker"]
        sides = (
            Worker([sys.executable, *shared, "ours"], threads=options.threads),
            Worker([str(options.peers_python), *shared, "peer"], threads=options.threads),
        )
        runs = compare(*sides, pairs=options.pairs)
        for side in sides:
            side.close()
    made = report("adapter_step", *sides, runs, adapter=options.adapter, precision=options.precision)
    tokens = options.steps * BATCH * SEQ
    made["tokens_per_s"] = [round(tokens / made[f"{side}_s"]) for side in ("ours", "peer")]
    made["losses"] = [side[-1]["losses"] for side in runs]
    made["memory_mb"] = [side[-1]["memory_mb"] for side in runs]
    print(json.dumps(made))


if __name__ == "__main__":
    main()
