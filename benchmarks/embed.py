"""Passages embedded per second: Cypher beside sentence-transformers, same weights, same texts, same threads.

Example: python benchmarks/embed.py --precision bf16
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from interleave import Worker, arguments, compare, report, serve


def passages(limit: int) -> list[str]:
    """The first so many paragraphs of New-Wiki."""
    from cypher.data.fetch import locate
    from cypher.data.readers import read_squad

    return [paragraph.context for paragraph in read_squad(locate("squadshifts/new_wiki"))][:limit]


def work_of(side: str, options: argparse.Namespace) -> None:
    """Load one side and serve."""
    import torch

    from cypher.hub import resolve

    torch.set_num_threads(options.threads)
    texts, folder = passages(options.limit), resolve("minilm")
    if side == "ours":
        from cypher.models.load import load_model
        from cypher.tasks.embed import Embedder

        embed = Embedder(load_model(str(folder)), precision=options.precision).embed
    else:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")
        model.max_seq_length = 256

        def embed(texts: list[str]) -> Any:
            return model.encode(texts, batch_size=options.peer_batch_size, normalize_embeddings=True)

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - started
        np.save(Path(options.folder) / f"{side}.npy", vectors)
        return {"seconds": seconds}

    names = ("torch",) if side == "ours" else ("torch", "transformers", "sentence_transformers")
    serve(work, {name: str(__import__(name).__version__) for name in names})


def gemm_peak(precision: str, threads: int) -> float:
    """Operations a second of a large matrix product in that precision, the most of several."""
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    multiply = torch._int_mm if precision == "int8" else torch.mm
    left, right = ((torch.randn(2048, 2048) * 40).to(dtype) for _ in range(2))
    times = []
    for _ in range(12):
        started = time.perf_counter()
        multiply(left, right)
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times)


def operations(texts: list[str]) -> float:
    """Of the matrix products of MiniLM over these texts, attention's two included."""
    from cypher.hub import resolve
    from cypher.hub.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve("minilm"))
    total = 0.0
    for encoding in tokenizer.encode_batch(texts):
        tokens = min(len(encoding.ids), 256)
        total += 6 * (2 * tokens * (4 * 384 * 384 + 2 * 384 * 1536) + 4 * tokens * tokens * 384)
    return total


def main() -> None:
    """Compare, and print one JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "int8"), default="fp32", help="of ours; the peer's is fp32"
    )
    parser.add_argument("--limit", type=int, default=512, help="passages (default 512)")
    parser.add_argument("--peer-batch-size", type=int, default=32, help="the peer's own default is 32")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work_of(options.worker, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        shared = [__file__, *sys.argv[1:], "--folder", folder, "--worker"]
        ours = Worker([sys.executable, *shared, "ours"], threads=options.threads)
        peer = Worker([str(options.peers_python), *shared, "peer"], threads=options.threads)
        runs = compare(ours, peer, pairs=options.pairs)
        vectors = [np.load(Path(folder) / f"{side}.npy") for side in ("ours", "peer")]
        ours.close(), peer.close()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    texts = passages(options.limit)
    cosine = float((vectors[0] * vectors[1]).sum(1).min())
    made = report("embed", ours, peer, runs, precision=options.precision, smallest_cosine=round(cosine, 6))
    made["passages_per_s"] = [round(len(texts) / made["ours_s"], 1), round(len(texts) / made["peer_s"], 1)]
    wanted, peak = operations(texts), gemm_peak(options.precision, options.threads)
    made["gigaflop"] = round(wanted / 1e9, 1)
    made["gemm_peak_gflops"] = round(peak / 1e9, 1)
    made["share_of_gemm_peak"] = round(wanted / made["ours_s"] / peak, 3)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
