"""A model whose matrices are cut computes what the whole one does, whatever is attached to it."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pytest
import tensor_cases
import torch
from tensor_cases import Found, prepared
from token_task import FAMILIES, LEARNING_RATE, VOCABULARY, model_of
from torch import Tensor, nn
from workers import Workers

from cypher.adapters.composition import BatchSplit, Fuse, Parallel, Split, Stack, Tree
from cypher.config import PRESETS, ParallelPlan
from cypher.errors import ConfigError
from cypher.layers.linear import Delta, Linear
from cypher.models.headed import HeadedModel
from cypher.parallel.exchange import share_of
from cypher.parallel.tensor_plan import Cut, check_tensor, cuts_of, refusals

# Presets with sizes that this width has room for, and nothing drawn at random.
SMALLER: dict[str, dict[str, Any]] = {
    "compacter": {"reduction_factor": 8},
    "compacter++": {"reduction_factor": 8},
    "prefix_tuning": {"length": 4, "bottleneck": 6},
    "prefix_tuning_flat": {"length": 4},
    "loreft": {"dropout": 0.0},
    "noreft": {"dropout": 0.0, "suffix_positions": 2},
    "direft": {"dropout": 0.0, "prefix_positions": 0, "suffix_positions": 1},
}
EVERYWHERE = ("query", "key", "value", "output", "up", "down")
ADAPTERS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset, **SMALLER.get(preset, {})} for preset in PRESETS},
    # Layers that are cut the other way round than the presets'.
    "lora everywhere": {"method": "lora", "rank": 3, "targets": EVERYWHERE},
    "gated lora everywhere": {"method": "lora", "rank": 3, "targets": EVERYWHERE, "gated": True},
    "dora everywhere": {"method": "dora", "rank": 3, "targets": EVERYWHERE},
    "vera everywhere": {"method": "vera", "rank": 3, "targets": EVERYWHERE},
    "dvora everywhere": {"method": "dvora", "rank": 3, "targets": EVERYWHERE},
    "ia3 the other way": {"method": "ia3", "outputs": ("query", "output", "down"), "inputs": ("value", "up")},
    "gated prefix": {"method": "prefix", "length": 3, "flat": True, "gated": True},
}
WRITERS = (
    "seq_bn",
    "double_seq_bn_inv",
    "lora everywhere",
    "dora everywhere",
    "prefix_tuning",
    "prompt_tuning",
    "loreft",
)
BOTTLENECK, LOW_RANK = ADAPTERS["seq_bn"], ADAPTERS["lora everywhere"]
SPLIT = Split("a", "b", splits=(3, 6))
COMPOSITIONS = {
    "stack": (Stack("a", "b"), BOTTLENECK),
    "fuse": (Fuse("a", "b"), BOTTLENECK),
    "split": (SPLIT, BOTTLENECK),
    "split of deltas": (SPLIT, LOW_RANK),
    "batch split": (BatchSplit("a", "b", batch_sizes=(3, 5)), LOW_RANK),
    "parallel": (Parallel("a", "b"), BOTTLENECK),
}
DIVIDED_FURTHER = "dp=2,tp=2,zero=3,sequence_parallel,activation_checkpointing"
PLANS = ("tp=2", "tp=2,sequence_parallel", "tp=4", "tp=4,sequence_parallel")


def adapters_for(family: str) -> dict[str, dict[str, Any]]:
    return ADAPTERS if family == "encoder" else {name: ADAPTERS[name] for name in WRITERS}


@cache
def whole(family: str) -> Found:
    return tensor_cases.learn_once("tp=1", family, {})


@cache
def whole_with_adapters(family: str) -> dict[str, Found]:
    return tensor_cases.with_adapters("tp=1", family, adapters_for(family))


def assert_same(found: Found, expected: Found, *, tolerance: float = 1e-5, what: str = "") -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found.logits, expected.logits, msg=lambda text: f"{what}: {text}", **close)
    assert found.loss == pytest.approx(expected.loss, abs=tolerance), what
    assert found.gradients.keys() == expected.gradients.keys(), what
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(
            found.gradients[name], gradient, msg=lambda text, name=name: f"{what} {name}: {text}", **close
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", PLANS)
def test_the_whole_model(workers: Workers, plan: str, family: str):
    expected = whole(family)
    assert len(expected.gradients) > 30
    for found in workers.run(ParallelPlan.parse(plan).tp, tensor_cases.learn_once, plan, family, {}):
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("plan", "family", "options"),
    [
        pytest.param("tp=2", "decoder", {"tied": False}, id="untied"),
        pytest.param("tp=4,sequence_parallel", "decoder", {"tied": False}, id="untied, shares of tokens"),
        pytest.param("tp=2", "encoder", {"checkpoints": True}, id="run again"),
        pytest.param("tp=2,sequence_parallel", "encoder_decoder", {"checkpoints": True}, id="shares run again"),
        pytest.param("tp=2", "encoder", {"training": False}, id="evaluation"),
        pytest.param(
            "tp=2,sequence_parallel", "decoder", {"adapter": BOTTLENECK, "tree": SPLIT}, id="split of a decoder"
        ),
        pytest.param(
            "tp=2", "encoder", {"adapter": LOW_RANK, "only_adapter": True, "frozen_layout": True}, id="frozen"
        ),
        *(
            pytest.param(plan, "encoder", {"adapter": adapter, "tree": tree}, id=f"{name} {plan}")
            for name, (tree, adapter) in COMPOSITIONS.items()
            for plan in ("tp=2", "tp=2,sequence_parallel")
        ),
    ],
)
def test_what_a_model_can_be(workers: Workers, plan: str, family: str, options: dict[str, Any]):
    expected = tensor_cases.learn_once("tp=1", family, options)
    for found in workers.run(ParallelPlan.parse(plan).tp, tensor_cases.learn_once, plan, family, options):
        assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", ["tp=2", "tp=2,sequence_parallel"])
def test_every_adapter(workers: Workers, plan: str, family: str):
    adapters = adapters_for(family)
    expected = whole_with_adapters(family)
    for results in workers.run(2, tensor_cases.with_adapters, plan, family, adapters):
        for name, found in results.items():
            assert_same(found, expected[name], tolerance=2e-5, what=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "adapter", "tree"),
    [
        pytest.param("dp=2,tp=2", ADAPTERS["gated lora everywhere"], None, id="gated lora"),
        pytest.param(DIVIDED_FURTHER, ADAPTERS["dora everywhere"], None, id="dora, divided further"),
        # A network that blocks share, and a penalty.
        *(
            pytest.param(plan, *adapter, id=f"{name} {plan}")
            for plan in ("dp=2,zero=3", "dp=2,tp=2", DIVIDED_FURTHER)
            for name, adapter in {
                "prefix": (ADAPTERS["prefix_tuning"], None),
                "fuse": COMPOSITIONS["fuse"][::-1],
            }.items()
        ),
    ],
)
def test_adapters_beside_copies(workers: Workers, plan: str, adapter: dict[str, Any], tree: Tree | None):
    expected_losses, expected = tensor_cases.trained("dp=1", adapter, tree)
    (losses, weights), *others = workers.run(ParallelPlan.parse(plan).world, tensor_cases.trained, plan, adapter, tree)
    assert all(other == pytest.approx(expected_losses, abs=1e-5) for other in (losses, *(each for each, _ in others)))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        # A softmax does not see what is added to all keys: that gradient is rounding alone.
        if name.endswith("key.bias"):
            continue
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0.1 * LEARNING_RATE, msg=name)


@pytest.mark.parametrize("plan", ["tp=2", "tp=2,sequence_parallel"])
def test_half_precision(workers: Workers, plan: str):
    options: dict[str, Any] = {"adapter": LOW_RANK, "only_adapter": True}
    exact = tensor_cases.learn_once("tp=1", "encoder", options)
    options |= {"dtype": torch.bfloat16, "frozen_layout": True}
    alone = tensor_cases.learn_once("tp=1", "encoder", options)
    for found in workers.run(2, tensor_cases.learn_once, plan, "encoder", options):
        assert found.logits.dtype == torch.bfloat16
        assert found.loss == pytest.approx(exact.loss, abs=0.01)
        # Rounding is another one, and no larger than that of one process.
        assert _error(found, exact) < 1.5 * _error(alone, exact) < 0.15


def _error(found: Found, exact: Found) -> float:
    pairs = [(found.gradients[name], gradient) for name, gradient in exact.gradients.items()]
    squares = sum((one - other).square().sum() for one, other in pairs)
    return float((squares / sum(other.square().sum() for _, other in pairs)).sqrt())


@pytest.mark.parametrize("plan", ["tp=2", "tp=4,sequence_parallel"])
@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_writing(workers: Workers, plan: str, family: str):
    expected = tensor_cases.written("tp=1", family)
    assert workers.run(ParallelPlan.parse(plan).tp, tensor_cases.written, plan, family) == [expected] * int(plan[3])


@pytest.mark.parametrize("plan", ["tp=2", "tp=2,sequence_parallel"])
def test_scores_are_means_over_the_heads_of_all(workers: Workers, plan: str):
    expected = tensor_cases.scores("tp=1")
    assert len(expected) == 4
    for found in workers.run(2, tensor_cases.scores, plan):
        torch.testing.assert_close(found, expected)


def held_of(parameter: nn.Parameter, cut: Cut, *, parts: int, place: int) -> int:
    if cut.dim is None:
        return parameter.numel()
    size = parameter.shape[cut.dim]
    return parameter.numel() // size * share_of(size, parts, place)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_each_process_holds_is_what_the_formula_says(workers: Workers, family: str):
    options = {"adapter": LOW_RANK, "tied": False}
    headed = HeadedModel(model := prepared(family, **options), model.language_head())
    cuts, parameters = cuts_of(headed), dict(headed.named_parameters())
    for place, found in enumerate(workers.run(4, tensor_cases.held, "tp=4", family, options)):
        for name, parameter in parameters.items():
            numel = held_of(parameter, cuts[name], parts=4, place=place)
            assert found[name] == (numel, numel * 4), name
    held = sum(numel for numel, _ in found.values())
    whole = sum(cuts[name].dim is None and parameter.numel() for name, parameter in parameters.items())
    total = sum(parameter.numel() for parameter in parameters.values())
    # The last process has one token less than the others.
    tables = sum(name.endswith(("token.weight", "model.output.weight")) for name in parameters)
    missing = (4 * 17 - VOCABULARY) * (tables * 32 + (family == "encoder"))
    assert held == whole + (total - whole + missing) // 4 - missing


@pytest.mark.parametrize("plan", ["tp=2", "tp=2,sequence_parallel"])
def test_processes_drop_the_same_of_what_they_share_and_other_parts_of_what_they_do_not(workers: Workers, plan: str):
    (first, mixed), (second, others) = workers.run(2, tensor_cases.drawn, plan, 0.3)
    assert_same(first, second, tolerance=0.0)
    assert len(mixed) == len(others) == 2  # forward, and again for the backward
    assert torch.equal(mixed[0], mixed[1])
    assert not torch.equal(mixed[0], others[0])
    (_, mixed), (_, others) = workers.run(2, tensor_cases.drawn, plan, 0.0)
    assert torch.equal(mixed[0], others[0])


def test_shares_of_tokens_keep_less_for_the_backward(workers: Workers):
    alone = tensor_cases.kept("tp=1", "decoder")
    (divided, _), (shared, _) = (
        workers.run(2, tensor_cases.kept, plan, "decoder") for plan in ("tp=2", "tp=2,sequence_parallel")
    )
    assert shared < 0.9 * divided < 0.6 * alone


def test_every_parameter_is_named_and_rules_name_something():
    for family in FAMILIES:
        for tied in (True, False):
            model = model_of(family, tied=tied)
            assert not refusals(model, ParallelPlan(tp=2, sequence_parallel=True))
            rules, names = model.tensor_plan(), [name for name, _ in model.named_parameters()]
            divided = {name for name, rule in rules.items() if rule in ("column", "row")}
            assert all(any(name.startswith(f"{rule}.") for name in names) for rule in divided)


def test_shares_are_those_of_chunks():
    for size in (5, 8, 67, 68):
        for parts in (2, 3, 4):
            chunks = torch.arange(size).chunk(parts)
            shares = [share_of(size, parts, place) for place in range(parts)]
            assert [length for _, length in shares][: len(chunks)] == [len(chunk) for chunk in chunks]
            assert [start for start, length in shares if length] == [int(chunk[0]) for chunk in chunks]


class Unknown(Delta):
    input_dims: ClassVar = None

    def forward(self, values: Tensor, output: Tensor) -> Tensor:
        return output

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight, bias


def test_what_cannot_be_divided_is_refused_with_the_arithmetic():
    model = model_of("encoder")
    for tp, message in (
        (3, "n_heads = 4 with tp = 3: needs a number that 3 divides"),
        (8, "n_heads = 4 with tp = 8: needs a number that 8 divides"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_tensor(model, ParallelPlan(tp=tp))
    assert refusals(model, ParallelPlan(tp=4)) == refusals(model, ParallelPlan(tp=1)) == []
    small = model_of("decoder")
    small.token = nn.Embedding(5, 32)
    with pytest.raises(
        ConfigError, match="a vocabulary of 5 with tp = 4: needs tokens for each: parts of 2 leave none"
    ):
        check_tensor(small, ParallelPlan(tp=4))
    query = model.get_submodule("segments.encoder.0.attention.query")
    assert isinstance(query, Linear)
    query.deltas["mine"] = Unknown()
    with pytest.raises(ConfigError, match="a Unknown with tp = 2: needs input_dims and output_dims"):
        check_tensor(model, ParallelPlan(tp=2))
    other = model_of("encoder")
    other.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=r"parameter scale with tp = 2: needs a rule: Bert\.tensor_plan"):
        check_tensor(other, ParallelPlan(tp=2))
