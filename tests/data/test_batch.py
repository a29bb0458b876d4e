"""Batches: every row once, the same order for the same seed, little padding."""

from __future__ import annotations

import random

import pytest
import torch

from cypher.data.batch import Batch, batches_for_inference, batches_for_training, pad_inputs, split_batch


def lengths(n: int) -> list[int]:
    draw = random.Random(3)
    return [draw.randint(5, 300) for _ in range(n)]


def test_training_batches_hold_every_row_once_and_depend_on_seed_and_epoch_only() -> None:
    rows = lengths(1000)
    first = batches_for_training(rows, batch_size=16, seed=1, epoch=0)
    assert sorted(row for batch in first for row in batch) == list(range(1000))
    assert {len(batch) for batch in first} == {16, 8}
    assert first == batches_for_training(rows, batch_size=16, seed=1, epoch=0)
    assert first != batches_for_training(rows, batch_size=16, seed=1, epoch=1)
    assert first != batches_for_training(rows, batch_size=16, seed=2, epoch=0)


def test_training_batches_pad_little_and_do_not_drift_in_length() -> None:
    rows = lengths(4096)
    batches = batches_for_training(rows, batch_size=16, seed=0, epoch=0)
    padded = sum(max(rows[row] for row in batch) * len(batch) for batch in batches)
    assert padded / sum(rows) < 1.05
    half = len(batches) // 2
    mean = [
        sum(rows[row] for batch in part for row in batch) / (16 * half) for part in (batches[:half], batches[half:])
    ]
    assert abs(mean[0] - mean[1]) < 20


@pytest.mark.parametrize("batch_tokens", [1, 300, 2048])
def test_inference_batches_hold_every_row_once_within_the_limit(batch_tokens: int) -> None:
    rows = lengths(200)
    batches = list(batches_for_inference(rows, batch_tokens=batch_tokens))
    assert sorted(row for batch in batches for row in batch) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(rows[row] for row in batch) <= batch_tokens


def test_split_batch_keeps_order_and_balances() -> None:
    assert split_batch([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]
    assert split_batch([1, 2], 5) == [[1], [2]]


def test_pad_inputs_masks_what_it_adds() -> None:
    inputs = pad_inputs([[5, 6, 7], [8]], pad_id=9, segment_ids=[[0, 1, 1], [1]])
    assert inputs.token_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert inputs.attention_mask.tolist() == [[True, True, True], [True, False, False]]
    assert inputs.segment_ids is not None
    assert inputs.segment_ids.tolist() == [[0, 1, 1], [1, 0, 0]]
    batch = Batch(inputs=inputs, targets={"label": torch.tensor([1, 2])}, rows=(0, 1)).to("cpu")
    assert batch.targets["label"].tolist() == [1, 2]
