"""The `adapters` library's Parallel of eight beside its own eight passes, for benchmarks/adapter_drop.py to be read by.

Same sizes and random weights, fp32, inference; runs in the environment of `make oracles`.

Example: .oracle-adapters/bin/python benchmarks/adapter_parallel_library.py
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

BLOCKS, ADAPTERS, WIDTH, HEADS, INNER, VOCABULARY = 6, 8, 384, 12, 1536, 30522


def measured(pairs: int) -> list[dict[str, Any]]:
    """One row a size, and number of first blocks without adapters."""
    import adapters
    import torch
    import transformers
    from adapters.composition import Parallel

    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS,
        intermediate_size=INNER,
    )  # fmt: skip
    model = transformers.BertModel(settings, add_pooling_layer=False).eval()
    adapters.init(model)
    names = [f"a{number}" for number in range(ADAPTERS)]
    for name in names:
        model.add_adapter(name, config="seq_bn")
    told = []
    for batch, seq in ((1, 16), (1, 32), (1, 64), (1, 128), (8, 128)):
        for skipped in (0, 3, 5):
            token_ids = torch.randint(1000, 30000, (batch, seq))
            times: dict[str, list[float]] = {"together": [], "each": []}
            for _ in range(pairs + 1):
                for kind, ways in (("together", [Parallel(*names)]), ("each", names)):
                    spent = 0.0
                    for way in ways:
                        started = time.perf_counter()
                        model.set_active_adapters(way, skip_layers=list(range(skipped)))
                        with torch.inference_mode():
                            model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids))
                        spent += time.perf_counter() - started
                    times[kind].append(spent)
            together, each = (median(taken[1:]) for taken in times.values())
            told.append(
                {
                    "rows": batch,
                    "tokens": seq,
                    "blocks_without": skipped,
                    "ratio": round(each / together, 2),
                    "ms": round(1000 * together, 1),
                }
            )
    return told


def main() -> None:
    """Measure, and print one JSON object."""
    import adapters
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="counted runs of each (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="(default 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    versions = {"adapters": adapters.__version__, "torch": torch.__version__}
    print(json.dumps({"benchmark": "adapter_parallel_library", "parallel": measured(options.pairs), **versions}))


if __name__ == "__main__":
    main()
