"""Questions answered per second from ten passages each: Cypher's reader beside Haystack's, same weights, same passages.

Both are asked one question at a time. Ours runs in the precision that is fastest here; Haystack's reader in fp32, as it
comes. F1 with an answer forced stands beside the speed. The weights are the same, the answers are not: Haystack's
reader gives the model no segment ids, and compares spans of different passages by other scores.

Example: python benchmarks/reader.py --questions 24
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interleave import Worker, arguments, compare, report, serve

PASSAGES = 10


@dataclass(frozen=True)
class Piece:
    """A passage as the reader takes it."""

    text: str
    document_id: str
    start: int = 0


def questions_of(number: int) -> list[tuple[str, list[str], list[str]]]:
    """Answerable questions of the SQuAD file, each with its paragraph among nine others, and its gold answers."""
    from cypher.data.fetch import locate
    from cypher.data.readers import read_squad

    paragraphs = read_squad(locate("squad/squad2_dev_open"))
    pairs = [(question, paragraph) for paragraph in paragraphs for question in paragraph.questions if question.answers]
    draw = random.Random(0)
    made = []
    for question, paragraph in draw.sample(pairs, number):
        others = draw.sample([other.context for other in paragraphs if other is not paragraph], PASSAGES - 1)
        passages = [paragraph.context, *others]
        draw.shuffle(passages)
        made.append((question.question, passages, [answer.text for answer in question.answers]))
    return made


def work_of(side: str, options: argparse.Namespace) -> None:
    """Load one side and serve."""
    import torch

    from cypher.tasks.answer_metrics import token_f1

    torch.set_num_threads(options.threads)
    asked = questions_of(options.questions)
    if side == "ours":
        from cypher.apps.qa.reader import Reader
        from cypher.tasks.find_reader import find_reader
        from cypher.tasks.reader_folder import load_reader

        reader = Reader(load_reader(find_reader(options.reader)), precision=options.precision)
        requests = [(question, [Piece(text, str(n)) for n, text in enumerate(texts)]) for question, texts, _ in asked]

        def answers() -> list[str]:
            if options.together:
                results = reader.read_many(requests, top_k=1, no_answer=False)
            else:
                results = [reader.read(*request, top_k=1, no_answer=False) for request in requests]
            return [result.answers[0].text or "" for result in results]
    else:
        from haystack import Document
        from haystack_integrations.components.readers.transformers import TransformersExtractiveReader

        theirs = TransformersExtractiveReader(model=options.exported, top_k=1, no_answer=False)
        theirs.warm_up()
        documents = [[Document(content=text) for text in texts] for _, texts, _ in asked]

        def answers() -> list[str]:
            found = [
                theirs.run(question, given)["answers"] for (question, _, _), given in zip(asked, documents, strict=True)
            ]
            return [each[0].data or "" for each in found]

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        given = answers()
        seconds = time.perf_counter() - started
        f1 = [token_f1(text, golds) for text, (_, _, golds) in zip(given, asked, strict=True)]
        return {"seconds": seconds, "f1": 100 * sum(f1) / len(f1)}

    names = ("torch",) if side == "ours" else ("torch", "transformers", "haystack")
    serve(work, {name: str(__import__(name).__version__) for name in names})


def main() -> None:
    """Compare, and print one JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=24, help="asked in each run (default 24)")
    parser.add_argument("--reader", default="minilm-qa", help="name or folder (default minilm-qa)")
    parser.add_argument("--precision", default="auto", help="of ours (default auto)")
    parser.add_argument("--together", action="store_true", help="ours may put all questions into shared batches")
    parser.add_argument("--exported", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work_of(options.worker, options)
        return
    from cypher.tasks.find_reader import find_reader
    from cypher.tasks.reader_folder import export_reader, load_reader

    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "exported"
        export_reader(load_reader(find_reader(options.reader)), exported)
        shared = [__file__, *sys.argv[1:], "--exported", str(exported), "--worker"]
        ours = Worker([sys.executable, *shared, "ours"], threads=options.threads)
        peer = Worker([str(options.peers_python), *shared, "peer"], threads=options.threads)
        runs = compare(ours, peer, pairs=options.pairs)
        ours.close(), peer.close()
    made = report(
        "reader", ours, peer, runs, precision=options.precision, f1=[round(side[0]["f1"], 2) for side in runs]
    )
    made["questions_per_s"] = [round(options.questions / made[f"{side}_s"], 2) for side in ("ours", "peer")]
    print(json.dumps(made))


if __name__ == "__main__":
    main()
