"""Entities by the definition of CoNLL's evaluation, case by case."""

from __future__ import annotations

import pytest

from cypher.tasks.entities import entities, entity_scores

# Where an entity begins and ends, after the functions startOfChunk and endOfChunk of CoNLL's script.
CASES = [
    ("O O", []),
    ("B-A", [("A", 0, 1)]),
    ("I-A", [("A", 0, 1)]),
    ("B-A I-A O", [("A", 0, 2)]),
    ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
    ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
    ("I-A I-B I-B", [("A", 0, 1), ("B", 1, 3)]),
    ("O I-A I-A B-A O", [("A", 1, 3), ("A", 3, 4)]),
    ("B-A O I-A", [("A", 0, 1), ("A", 2, 3)]),
    ("B-A-B I-A-B", [("A-B", 0, 2)]),
]


@pytest.mark.parametrize(("tags", "expected"), CASES)
def test_entities(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert [tuple(entity) for entity in entities(tags.split())] == expected


def test_scores_count_whole_entities_of_all_rows() -> None:
    golds = ["B-A I-A O B-B".split(), "O B-A".split(), ["B-B"]]
    found = ["B-A I-A O B-A".split(), "B-A O".split(), ["I-B"]]
    scores = entity_scores(golds, found)
    # 2 of 4 entities found, among 4 given: the one of the third row is the same although its tag is not.
    assert scores == pytest.approx({"f1": 50.0, "precision": 50.0, "recall": 50.0})
    assert entity_scores([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert entity_scores([["B-A"]], [["O"]])["precision"] == 0.0
