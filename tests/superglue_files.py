"""Small official-looking files of all ten tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cypher.apps.superglue.benchmark import TASKS

CREATURES = ("otter", "heron", "badger", "lynx", "raven", "marten", "beaver", "stork")
NAMES = ("Anna", "Boris", "Clara", "David", "Emil", "Frida", "Gustav", "Hanna")


def line(key: str, idx: int) -> dict[str, Any]:
    """One labelled line; labels and texts go by ``idx``, so that there is something to learn."""
    creature, name, even = CREATURES[idx % 8], NAMES[idx % 8], idx % 2 == 0
    place = f"river {idx}"
    if key == "boolq":
        passage = f"The {creature} lives near the {place}. It {'swims' if even else 'flies'} all day."
        return {"question": f"does the {creature} swim", "passage": passage, "idx": idx, "label": even}
    if key == "cb":
        label = ("entailment", "contradiction", "neutral")[idx % 3]
        verb = ("saw", "did not see", "may see")[idx % 3]
        return {"premise": f"{name} {verb} the {place}.", "hypothesis": f"{name} saw it", "label": label, "idx": idx}
    if key == "copa":
        choices = ["It was cold.", "It was warm."]
        question = "cause" if idx % 4 < 2 else "effect"
        premise = f"{name} {'froze' if even else 'sweated'} at the {place}."
        label = 0 if even else 1
        return {"premise": premise, "choice1": choices[0], "choice2": choices[1], "question": question,
                "label": label, "idx": idx}  # fmt: skip
    if key == "multirc":
        text = f"The {creature} met {name} near the {place}. They ate fish."
        questions = [
            {
                "question": question,
                "idx": 10 * idx + number,
                "answers": [
                    {"text": answer, "idx": 100 * idx + 10 * number + place_, "label": label}
                    for place_, (answer, label) in enumerate(answers)
                ],
            }
            for number, (question, answers) in enumerate(
                [
                    ("Who met?", [(f"the {creature}", 1), ("a whale", 0), (name, 1)]),
                    ("What did they eat?", [("fish", 1), ("stones and sand", 0)]),
                ]
            )
        ]
        return {"idx": idx, "version": 1.1, "passage": {"text": text, "questions": questions}}
    if key == "record":
        other = NAMES[(idx + 3) % 8]
        text = f"{name} met {other} near the {place}. {name} was happy."
        entities = [(0, name), (text.index(other), other), (text.rindex(name), name)]
        return {
            "source": "news",
            "passage": {
                "text": text,
                "entities": [{"start": start, "end": start + len(word) - 1} for start, word in entities],
            },
            "qas": [
                {
                    "query": "@placeholder was happy that day",
                    "answers": [{"start": 0, "end": len(name) - 1, "text": name}],
                    "idx": 5000 + idx,
                }
            ],
            "idx": idx,
        }
    if key in ("rte", "ax-g"):
        label = "entailment" if even else "not_entailment"
        found = {"premise": f"{name} {'saw' if even else 'left'} the {place}.", "hypothesis": f"{name} saw something.",
                 "label": label, "idx": idx}  # fmt: skip
        return {**found, "pair_id": idx // 2} if key == "ax-g" else found
    if key == "ax-b":
        label = "entailment" if even else "not_entailment"
        return {"sentence1": f"{name} saw the {place}.", "sentence2": f"{name} saw {'it' if even else 'nothing'}.",
                "logic": "Negation", "label": label, "idx": idx}  # fmt: skip
    if key == "wic":
        first, second = f"The {creature} of the {place}.", f"A {creature} of a river." if even else f"Eat {creature}!"
        start1, start2 = first.index(creature), second.index(creature)
        return {"word": creature, "sentence1": first, "sentence2": second, "idx": idx, "label": even,
                "start1": start1, "end1": start1 + len(creature), "start2": start2, "end2": start2 + len(creature),
                "version": 1.1}  # fmt: skip
    text = f"{name} told the {creature} about the {place} because {'he' if even else 'it'} was happy."
    spans = {"span1_index": 0, "span1_text": name, "span2_index": 8, "span2_text": "he" if even else "it"}
    return {"text": text, "target": spans, "idx": idx, "label": even}


def unlabelled(key: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same as a test file has it."""
    values = json.loads(json.dumps(values))
    values.pop("label", None)
    if key == "multirc":
        for question in values["passage"]["questions"]:
            for answer in question["answers"]:
                del answer["label"]
    if key == "record":
        for query in values["qas"]:
            del query["answers"]
    return values


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(values) + "\n" for values in lines), encoding="utf-8")
    return path


def write_benchmark(folder: Path, *, train: int = 24, val: int = 8, test: int = 6) -> Path:
    """A folder of all tasks with their official names; the diagnostics have a test file alone, with labels."""
    for key, task in TASKS.items():
        if task.diagnostic_of:
            write_lines(folder / task.name / f"{task.name}.jsonl", [line(key, idx) for idx in range(test)])
            continue
        write_lines(folder / task.name / "train.jsonl", [line(key, idx) for idx in range(train)])
        write_lines(folder / task.name / "val.jsonl", [line(key, idx) for idx in range(train, train + val)])
        later = range(train + val, train + val + test)
        write_lines(folder / task.name / "test.jsonl", [unlabelled(key, line(key, idx)) for idx in later])
    return folder
