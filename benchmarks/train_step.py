"""Training tokens per second: Cypher's loop beside transformers' Trainer with bf16, same questions, same batch size.

Both fine-tune all weights of MiniLM for span extraction on the same windows of SQuADShifts New-Wiki, with the same
share of dropout. The Trainer runs at its defaults: rows in random order, padded to the longest of their batch. Tokens
are counted without padding. Their training losses differ in kind (ours allows every annotator's answer, and spans of
the passage only), so beside the speed stands one loss measured alike: that of windows held out, after the last step.

Example: python benchmarks/train_step.py --steps 20
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interleave import Worker, arguments, compare, report, serve

BATCH = 8  # the Trainer's default
HELD_OUT = 96  # windows


def windows_of(options: argparse.Namespace) -> tuple[Any, Any, list[Any], list[Any]]:
    """The loaded model, the task, as many windows as the steps need, and those held out, of other paragraphs."""
    from cypher.config import ExtractSpanConfig
    from cypher.data.fetch import locate
    from cypher.data.readers import read_squad
    from cypher.models.load import Dropout, load_model
    from cypher.tasks.extract_span import ExtractSpan
    from cypher.tasks.span_rows import span_rows

    loaded = load_model("minilm", dropout=Dropout(dropout=options.dropout, attention_dropout=options.dropout))
    task = ExtractSpan(ExtractSpanConfig(), tokenizer=loaded.tokenizer, special=loaded.special)
    paragraphs = read_squad(locate("squadshifts/new_wiki"))

    def windows(part: list[Any], number: int) -> list[Any]:
        rows = span_rows(part)[::7]
        made = [window for index, row in enumerate(rows[:number]) for window in task.encode(row, index=index)]
        return made[:number]

    return loaded, task, windows(paragraphs[100:], options.steps * BATCH), windows(paragraphs[:100], HELD_OUT)


def held_out_loss(task: Any, windows: list[Any], logits_of: Any) -> float:
    """Mean cross-entropy of the first gold answer's two ends over all tokens; ``logits_of(inputs) (rows, seq, 2)``."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for first in range(0, len(windows), BATCH):
            part = windows[first : first + BATCH]
            inputs = task.collate(part).inputs
            logits = logits_of(inputs).float().masked_fill(~inputs.attention_mask.unsqueeze(-1), float("-inf"))
            golds = torch.tensor([window.answers[0] for window in part])
            total += torch.nn.functional.cross_entropy(logits, golds, reduction="sum").item() / 2
    return round(total / len(windows), 3)


def ours(options: argparse.Namespace) -> None:
    """Cypher's step over length-bucketed batches."""
    import torch

    from cypher.config import TrainConfig
    from cypher.data.batch import batches_for_training
    from cypher.layers.precision import fastest_precision
    from cypher.models.headed import HeadedModel
    from cypher.train.optimiser import build_optimiser, rate_factor
    from cypher.train.step import train_step

    torch.set_num_threads(options.threads)
    loaded, task, windows, held_out = windows_of(options)
    lengths = [task.length(window) for window in windows]
    initial = {name: value.clone() for name, value in loaded.model.state_dict().items()}

    def work() -> dict[str, Any]:
        torch.manual_seed(0)
        loaded.model.load_state_dict(initial)
        model = HeadedModel(loaded.model, task.head(loaded.model)).train()
        loaded.model.prepare_training(torch.bfloat16 if fastest_precision() == "bf16" else torch.float32)
        optimiser = build_optimiser(model, TrainConfig(learning_rate=options.learning_rate, weight_decay=0.0))
        losses = []
        started = time.perf_counter()
        order = batches_for_training(lengths, batch_size=BATCH, seed=0, epoch=0)
        for step, chosen in enumerate(order):
            batch = task.collate([windows[index] for index in chosen])
            rate = rate_factor(step, total=len(order), warmup=0.0)
            losses.append(train_step(model, task, [batch], optimiser, rate=rate, clip_norm=1.0))
        seconds = time.perf_counter() - started
        model.eval()
        loss = held_out_loss(task, held_out, lambda inputs: model(inputs)[0])
        return {
            "seconds": seconds,
            "tokens": sum(lengths),
            "held_out_loss": loss,
            "losses": [round(loss / 2, 3) for loss in losses],
        }

    serve(work, {"torch": torch.__version__})


def peer(options: argparse.Namespace) -> None:
    """The Trainer over the same windows; its loss is the mean of start and end, half of our sum."""
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    loaded, task, windows, held_out = windows_of(options)
    rows = []
    for window in windows:
        batch = task.collate([window])
        first, last = window.answers[0]
        rows.append(
            {
                "input_ids": list(window.token_ids),
                "token_type_ids": batch.inputs.segment_ids[0].tolist(),
                "attention_mask": [1] * len(window.token_ids),
                "start_positions": first,
                "end_positions": last,
            }
        )

    def work() -> dict[str, Any]:
        transformers.set_seed(0)
        model = transformers.BertForQuestionAnswering.from_pretrained(
            loaded.folder, hidden_dropout_prob=options.dropout, attention_probs_dropout_prob=options.dropout
        )
        with tempfile.TemporaryDirectory() as folder:
            settings = transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                learning_rate=options.learning_rate,
                bf16=True,
                use_cpu=True,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(loaded.folder)
            trainer = transformers.Trainer(
                model=model,
                args=settings,
                train_dataset=rows,
                data_collator=transformers.DataCollatorWithPadding(tokenizer),
            )
            trainer.remove_callback(transformers.PrinterCallback)
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
        model.eval()

        def logits_of(inputs: Any) -> torch.Tensor:
            given = model(inputs.token_ids, inputs.attention_mask.long(), inputs.segment_ids)
            return torch.stack([given.start_logits, given.end_logits], -1)

        return {
            "seconds": seconds,
            "tokens": sum(len(row["input_ids"]) for row in rows),
            "held_out_loss": held_out_loss(task, held_out, logits_of),
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        }

    serve(work, {"torch": torch.__version__, "transformers": transformers.__version__})


def main() -> None:
    """Compare, and print one JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="optimiser steps of each run (default 40)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="peak (default 5e-5, the Trainer's)")
    parser.add_argument("--dropout", type=float, default=0.1, help="of both (default 0.1, the model's own)")
    options = parser.parse_args()
    if options.worker:
        {"ours": ours, "peer": peer}[options.worker](options)
        return
    shared = [str(Path(__file__)), *sys.argv[1:], "--worker"]
    sides = (
        Worker([sys.executable, *shared, "ours"], threads=options.threads),
        Worker([str(options.peers_python), *shared, "peer"], threads=options.threads),
    )
    runs = compare(*sides, pairs=options.pairs)
    for side in sides:
        side.close()
    made = report("train_step", *sides, runs)
    made["tokens_per_s"] = [
        round(run[0]["tokens"] / made[f"{name}_s"]) for name, run in zip(("ours", "peer"), runs, strict=True)
    ]
    made["dropout"] = options.dropout
    made["held_out_loss"] = [run[0]["held_out_loss"] for run in runs]
    made["losses"] = [run[0]["losses"] for run in runs]
    print(json.dumps(made))


if __name__ == "__main__":
    main()
