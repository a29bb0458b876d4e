"""Every composition on every architecture equals what it says, worked out from single adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import MODELS, WIDTH, build, hidden_of, inputs, randomise
from torch import Tensor

from cypher.adapters.adapter import Adapter
from cypher.adapters.arrangement import activate
from cypher.adapters.composition import (
    Average,
    BatchSplit,
    Composition,
    Fuse,
    MultiTask,
    Parallel,
    Split,
    Stack,
    from_dict,
)
from cypher.adapters.fusion import (
    Fusion,
    add_fusion,
    freeze_all_but_fusion,
    fusion_parameters,
    remove_fusion,
)
from cypher.adapters.methods import adapter_of
from cypher.config import FusionConfig, InferencePrecision, adapter_config
from cypher.data.batch import Inputs
from cypher.decode.greedy import greedy
from cypher.errors import ConfigError, ModelError
from cypher.layers.kernels import int8_is_exact
from cypher.layers.penalty import penalty_of
from cypher.layers.sites import JoinSite
from cypher.layers.state import State
from cypher.models.model import Model

# One method a kind of place, and one with several.
METHODS = {
    "seq_bn": {"preset": "seq_bn"},
    "lora": {"preset": "lora", "rank": 2},
    "ia3": {"preset": "ia3"},
    "prefix": {"preset": "prefix_tuning_flat", "length": 3},
    "prompt": {"preset": "prompt_tuning", "length": 2},
    "loreft": {"preset": "loreft"},
    "mam": {"method": "union", "parts": ({"method": "prefix", "length": 2, "flat": True}, {"preset": "par_bn"})},
}
# What is put in front of rows, or looks at whole rows, cannot be averaged or split by token.
BY_TOKEN = ("seq_bn", "lora", "ia3")
AVERAGED = (*BY_TOKEN, "loreft")
NAMES = ("a", "b", "c")
TABLE = [(method, architecture) for method in METHODS for architecture in MODELS]


def with_adapters(method: str, architecture: str, names: tuple[str, ...] = NAMES) -> Model:
    model = build(architecture)
    for seed, name in enumerate(names):
        adapter_of(adapter_config(METHODS[method])).attach(model, name)
        randomise(model, name, seed=seed)
    return model.eval()


def through(model: Model, tree: str | Composition | None, given: Inputs) -> Tensor:
    activate(model, tree)
    return hidden_of(model, given) if not isinstance(tree, Parallel) else copies_of(model, given)


def copies_of(model: Model, given: Inputs) -> Tensor:
    """Hidden states of every copy at real tokens, ``(copies · batch, seq, width)``."""
    with torch.no_grad():
        encoded = model(given)
    return encoded.scatter()[:, : given.token_ids.shape[1]] * given.attention_mask[encoded.row_of].unsqueeze(-1)


def rows(given: Inputs, chosen: list[int]) -> Inputs:
    source = None if given.source is None else rows(given.source, chosen)
    return Inputs(token_ids=given.token_ids[chosen], attention_mask=given.attention_mask[chosen], source=source)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("method", "architecture"), TABLE)
def test_one_of_several(method: str, architecture: str) -> None:
    model, alone = with_adapters(method, architecture), with_adapters(method, architecture, ("a",))
    given = inputs(architecture)
    assert torch.equal(through(model, "a", given), hidden_of(alone, given))
    assert torch.equal(through(model, Stack("a"), given), hidden_of(alone, given))
    assert not torch.allclose(through(model, "b", given), hidden_of(alone, given), atol=1e-3)


@pytest.mark.parametrize(("method", "architecture"), TABLE)
def test_stack_is_the_order_of_attachment(method: str, architecture: str) -> None:
    model, given = with_adapters(method, architecture), inputs(architecture)
    other_order = with_adapters(method, architecture, ("c",))
    for seed, name in ((0, "a"), (1, "b")):
        adapter_of(adapter_config(METHODS[method])).attach(other_order, name)
        randomise(other_order, name, seed=seed)
    randomise(other_order, "c", seed=2)
    close(through(model, Stack("c", "a", "b"), given), through(other_order, None, given))


@pytest.mark.parametrize(("method", "architecture"), TABLE)
def test_batch_split_and_multi_task_serve_each_row_by_its_own(method: str, architecture: str) -> None:
    model, given = with_adapters(method, architecture), inputs(architecture)
    alone = {name: through(model, name, given) for name in NAMES}
    expected = torch.cat([alone["b"][:1], alone["a"][1:]])
    close(through(model, BatchSplit("b", "a", batch_sizes=[1, 2]), given), expected)
    mixed = Inputs(
        token_ids=given.token_ids,
        attention_mask=given.attention_mask,
        source=given.source,
        adapter_ids=torch.tensor([2, 0, 2]),
    )
    expected = torch.stack([alone["c"][0], alone["a"][1], alone["c"][2]])
    close(through(model, MultiTask(*NAMES), mixed), expected)


@pytest.mark.parametrize(("method", "architecture"), TABLE)
def test_parallel_is_every_adapter_by_itself(method: str, architecture: str) -> None:
    model, given = with_adapters(method, architecture), inputs(architecture)
    expected = torch.cat([through(model, name, given) for name in NAMES])
    close(through(model, Parallel(*NAMES), given), expected)
    with torch.no_grad():
        assert model(given).row_of.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("architecture", ["llama", "seq2seq"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_parallel_and_batch_split_step_by_step(method: str, architecture: str) -> None:
    model, given = with_adapters(method, architecture), inputs(architecture)
    for tree, copies in ((Parallel("a", "b"), 2), (BatchSplit("a", "b", batch_sizes=[1, 2]), 1)):
        activate(model, tree)
        expected, state, steps = copies_of(model, given), State(capacity=40), []
        for start, end in ((0, 4), (4, 5), (5, 9)):
            given_now = given if not start else rows(given, list(range(3)) * copies)
            step = Inputs(
                token_ids=given_now.token_ids[:, start:end],
                attention_mask=given_now.attention_mask[:, start:end],
                source=given_now.source,
            )
            with torch.no_grad():
                steps.append(model(step, state).scatter())
        close(torch.cat(steps, 1) * given.attention_mask.repeat(copies, 1).unsqueeze(-1), expected)


# Rows of what attention, cross-attention and feed-forward make in the first block that has adapters; 3 come in.
FIRST_BLOCKS = [
    ({"preset": "seq_bn"}, "bert", (3, 3)),
    ({"preset": "double_seq_bn"}, "bert", (3, 9)),
    ({"preset": "double_seq_bn"}, "llama", (3, 9)),
    ({"method": "lora", "rank": 2, "targets": ("up",)}, "llama", (3, 9)),
    ({"method": "lora", "rank": 2, "targets": ("key",)}, "bert", (9, 9)),
    ({"preset": "loreft"}, "bert", (3, 3)),
    ({"preset": "seq_bn", "leave_out": (0, 1)}, "seq2seq", (3, 3, 3)),
    ({"preset": "double_seq_bn", "leave_out": (0, 1)}, "seq2seq", (3, 9, 9)),
    ({"preset": "prompt_tuning", "length": 2}, "bert", (9, 9)),
]


@pytest.mark.parametrize(("values", "architecture", "expected"), FIRST_BLOCKS)
def test_what_comes_before_the_first_difference_runs_once(
    values: dict[str, Any], architecture: str, expected: tuple[int, ...]
) -> None:
    model, given = build(architecture), inputs(architecture)
    for seed, name in enumerate(NAMES):
        adapter_of(adapter_config(values)).attach(model, name)
        randomise(model, name, seed=seed)
    alone = torch.cat([through(model, name, given) for name in NAMES])
    first = [block for _, block in model.blocks()][2 if architecture == "seq2seq" else 0]
    seen: list[int] = []
    for part in (first.attention, first.cross_attention, first.feedforward):
        if part is not None:
            part.register_forward_hook(
                lambda _part, _given, made: seen.append(len(made[0] if len(made) == 2 else made))
            )
    close(through(model, Parallel(*NAMES), given), alone)
    assert tuple(seen) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("preset", ["seq_bn", "double_seq_bn", "par_bn", "scaled_par_bn", "compacter"])
def test_packed_plugs_side_by_side_are_each_by_itself(preset: str, precision: InferencePrecision) -> None:
    if precision == "int8" and not int8_is_exact():
        pytest.skip("this machine has no 8-bit products")
    model, given = build("bert"), inputs("bert")
    for seed, name in enumerate(NAMES):
        adapter_of(adapter_config({"preset": preset, "reduction_factor": 4})).attach(model, name)
        randomise(model, name, seed=seed)
    model.pack(precision)
    alone = torch.cat([through(model, name, given) for name in NAMES])
    tolerance = 2e-5 if precision == "fp32" else 0.1
    for tree, expected in ((Parallel(*NAMES), alone), (Parallel("b", "a"), torch.cat([alone[3:6], alone[:3]]))):
        torch.testing.assert_close(through(model, tree, given), expected, atol=tolerance, rtol=tolerance)


def test_bottlenecks_of_other_sizes_go_one_by_one() -> None:
    model, given = build("bert"), inputs("bert")
    for factor, name in enumerate(NAMES, start=2):
        adapter_of(adapter_config({"preset": "seq_bn", "reduction_factor": factor})).attach(model, name)
        randomise(model, name, seed=factor)
    alone = torch.cat([through(model, name, given) for name in NAMES])
    close(through(model, Parallel(*NAMES), given), alone)


def test_bottlenecks_side_by_side_learn_as_each_by_itself() -> None:
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    parameters = [value for name in NAMES for value in Adapter.parameters_of(model, name).values()]
    weights = torch.arange(9.0).view(9, 1, 1)
    activate(model, Parallel(*NAMES))
    together = torch.autograd.grad((model(given).hidden * weights).sum(), parameters)
    total = torch.zeros(())
    for place, name in enumerate(NAMES):
        activate(model, name)
        total = total + (model(given).hidden * weights[3 * place : 3 * place + 3]).sum()
    for found, expected in zip(together, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_rows_are_copied_behind_the_blocks_that_are_left_out() -> None:
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    seen: list[int] = []
    for _, block in model.blocks():
        block.feedforward.register_forward_hook(lambda _module, _given, made: seen.append(len(made)))
    activate(model, Parallel(*NAMES))
    copies_of(model, given)
    activate(model, Parallel(*NAMES), skipped_layers=[0])
    copies_of(model, given)
    assert seen == [3, 9, 3, 3]
    activate(model, Parallel(*NAMES), skipped_layers=[0, 1])
    assert len(copies_of(model, given)) == 9


def test_scores_of_attention_have_the_copied_rows() -> None:
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    made: list[Tensor] = []
    for _, block in model.blocks():
        block.register_forward_hook(lambda _block, _given, output: made.append(output.scores))
    activate(model, Parallel(*NAMES))
    model(given, scores=True)
    assert [len(scores) for scores in made] == [9, 9]
    assert torch.equal(made[0][:3], made[0][6:])


@pytest.mark.parametrize("architecture", sorted(MODELS))
@pytest.mark.parametrize("method", AVERAGED)
def test_average_weighs_what_each_adapter_makes(method: str, architecture: str) -> None:
    """In one place, an average of an adapter with itself is the adapter; of two it lies between them."""
    model, given = with_adapters(method, architecture), inputs(architecture)
    alone = through(model, "a", given)
    close(through(model, Average("a", "b", weights=[1, 0]), given), alone)
    close(
        through(model, Average("a", "b", weights=[3, 1]), given),
        through(model, Average("b", "a", weights=[1, 3]), given),
    )
    assert not torch.allclose(through(model, Average("a", "b"), given), alone, atol=1e-3)


def test_average_at_one_join() -> None:
    model = with_adapters("seq_bn", "bert", ("a", "b"))
    site = next(site for site in model.modules() if isinstance(site, JoinSite) and site.plugs)
    update, residual = torch.randn(2, 4, WIDTH), torch.randn(2, 4, WIDTH)
    plugged = [site.plugs[name](update, residual, residual, site.norm) for name in "ab"]
    activate(model, Average("a", "b", weights=[3, 1]))
    from cypher.layers.route import Route, following

    with following(Route(flow=model.arrangement.flow)):
        close(site(update, residual, residual), site.norm(residual + 0.75 * plugged[0] + 0.25 * plugged[1]))


@pytest.mark.parametrize("architecture", sorted(MODELS))
@pytest.mark.parametrize("method", BY_TOKEN)
def test_split_gives_each_stretch_its_own(method: str, architecture: str) -> None:
    """With the same adapter twice, a split changes nothing; with two, the first block's tokens differ by stretch."""
    model = with_adapters(method, architecture, ("a",))
    adapter_of(adapter_config(METHODS[method])).attach(model, "twin")
    randomise(model, "twin", seed=0)
    adapter_of(adapter_config(METHODS[method])).attach(model, "b")
    randomise(model, "b", seed=1)
    given = inputs(architecture)
    close(through(model, Split("a", "twin", splits=[2, 9]), given), through(model, "a", given))
    mixed = through(model, Split("a", "b", splits=[2, 99]), given)
    assert not torch.allclose(mixed, through(model, "a", given), atol=1e-3)
    assert not torch.allclose(mixed, through(model, "b", given), atol=1e-3)


class TestFusion:
    @pytest.mark.parametrize("architecture", sorted(MODELS))
    def test_by_the_equation(self, architecture: str) -> None:
        model, fuse = with_adapters("seq_bn", architecture, ("a", "b")), Fuse("a", "b")
        add_fusion(model, fuse)
        for parameter in fusion_parameters(model, fuse).values():
            torch.nn.init.normal_(parameter, std=0.3)
        site = next(site for site in model.modules() if isinstance(site, JoinSite) and site.fusions)
        update, residual = torch.randn(2, 4, WIDTH), torch.randn(2, 4, WIDTH)
        norm = site.norm if site.style == "post" else torch.nn.Identity()
        given = norm(update + residual)
        changes = torch.stack([site.plugs[name].change(update, residual, residual, norm).change for name in "ab"])
        fusion = site.fusions["a,b"]
        scores = (fusion.query(given) * fusion.key(changes)).sum(-1)
        mixed = (scores.softmax(0).unsqueeze(-1) * fusion.value(changes)).sum(0)
        activate(model, fuse)
        from cypher.layers.route import Route, following

        with following(Route(flow=model.arrangement.flow)):
            close(site(update, residual, residual), norm(residual + update + mixed))

    def test_begins_as_a_mean_and_does_not_change_by_being_used(self) -> None:
        torch.manual_seed(0)
        fusion, changes = Fusion(8, FusionConfig()), torch.randn(2, 3, 4, 8)
        given = torch.zeros(2, 3, 8)
        close(fusion(given, changes), changes.mean(2))
        assert torch.equal(fusion(given, changes), fusion(given, changes))

    def test_penalty_holds_the_values_at_the_identity(self) -> None:
        model, fuse = with_adapters("seq_bn", "bert", ("a", "b")), Fuse("a", "b")
        add_fusion(model, fuse, FusionConfig(regularisation=0.5))
        freeze_all_but_fusion(model, fuse)
        values = [part.value.weight for part in model.modules() if isinstance(part, Fusion)]
        torch.nn.init.normal_(values[0])
        expected = sum(0.5 * (torch.eye(WIDTH) - value).square().sum() for value in values)
        penalty = penalty_of(model)
        assert penalty is not None
        close(penalty, expected)
        penalty.backward()
        assert values[0].grad is not None

    def test_without_values_there_is_nothing_to_penalise(self) -> None:
        model, fuse = with_adapters("seq_bn", "bert", ("a", "b")), Fuse("a", "b")
        add_fusion(model, fuse, FusionConfig(value=False))
        freeze_all_but_fusion(model, fuse)
        assert penalty_of(model) is None

    def test_trains_nothing_else(self) -> None:
        model, fuse = with_adapters("seq_bn", "bert", ("a", "b")), Fuse("a", "b")
        add_fusion(model, fuse)
        freeze_all_but_fusion(model, fuse)
        activate(model, fuse)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == set(fusion_parameters(model, fuse))
        assert len(trained) == 2 * 5
        given = inputs("bert")
        (model(given).scatter() * given.attention_mask.unsqueeze(-1)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in fusion_parameters(model, fuse).values())

    def test_refusals(self) -> None:
        model = with_adapters("lora", "bert", ("a", "b"))
        with pytest.raises(ConfigError, match="bottleneck or compacter"):
            add_fusion(model, Fuse("a", "b"))
        model, fuse = with_adapters("seq_bn", "bert", ("a", "b")), Fuse("a", "b")
        with pytest.raises(ConfigError, match="no weights"):
            activate(model, fuse)
        add_fusion(model, fuse)
        with pytest.raises(ConfigError, match="exists already"):
            add_fusion(model, fuse)
        remove_fusion(model, fuse)
        assert not fusion_parameters(model, fuse)


@pytest.mark.parametrize(
    "tree",
    [
        Stack("a", Parallel("b", "c")),
        Stack(BatchSplit("a", "b", batch_sizes=[2, 1]), "c"),
        Parallel(Stack("a", "b"), "c"),
        BatchSplit(Stack("a", "c"), "b", batch_sizes=[1, 2]),
        Average(Stack("a", "b"), "c", weights=[1, 2]),
        MultiTask("a", Stack("b", "c")),
    ],
    ids=repr,
)
def test_nested(tree: Composition) -> None:
    """Rows of a nested composition are those of its branches alone."""
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    assert from_dict(tree.to_dict()) == tree
    if isinstance(tree, MultiTask):
        ids = torch.tensor([1, 0, 1])
        given = Inputs(token_ids=given.token_ids, attention_mask=given.attention_mask, adapter_ids=ids)
        expected = torch.stack(
            [
                through(model, Stack("b", "c"), given)[0],
                through(model, "a", given)[1],
                through(model, Stack("b", "c"), given)[2],
            ]
        )
    elif isinstance(tree, Parallel):
        expected = torch.cat([through(model, child, given) for child in tree.children])
    elif isinstance(tree, BatchSplit):
        expected = torch.cat([through(model, Stack("a", "c"), given)[:1], through(model, "b", given)[1:]])
    elif isinstance(tree, Average):
        activate(model, tree)
        assert hidden_of(model, given).isfinite().all()
        return
    elif isinstance(tree.children[-1], Parallel):
        expected = torch.cat([through(model, Stack("a", last), given) for last in ("b", "c")])
        activate(model, tree)
        close(copies_of(model, given), expected)
        return
    else:
        expected = torch.cat([through(model, Stack("a", "c"), given)[:2], through(model, Stack("b", "c"), given)[2:]])
    close(through(model, tree, given), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fuse("a"), "at least 2"),
        (lambda: Fuse("a", Parallel("b", "c")), "Parallel inside Fuse"),
        (lambda: Parallel("a", Parallel("b", "c")), "Parallel inside Parallel"),
        (lambda: Stack("a", Stack("b")), "Stack inside Stack"),
        (lambda: Parallel("a", "a"), "'a' twice"),
        (lambda: Split("a", "b", splits=[3]), "one size"),
        (lambda: BatchSplit("a", "b", batch_sizes=[0, 3]), "at least 1"),
        (lambda: Average("a", "b", weights=[1]), "one weight each"),
        (lambda: Average("a", "b", weights=[1, -1]), "not 0"),
        (lambda: from_dict({"type": "Stak", "children": ["a"]}), "Stak"),
        (lambda: from_dict({"type": "Stack", "children": ["a"], "depth": 2}), "depth"),
    ],
)
def test_what_cannot_be_composed(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("method", "tree", "message"),
    [
        ("prefix", Average("a", "b"), "in front of all keys"),
        ("prompt", Average("a", "b"), "the whole input"),
        ("prompt", Split("a", "b", splits=[1, 1]), "the whole input"),
        ("loreft", Split("a", "b", splits=[1, 1]), "by their place"),
        ("seq_bn", "d", "did you mean"),
        ("seq_bn", Stack("a", "x"), "not attached"),
    ],
)
def test_what_a_method_cannot(method: str, tree: str | Composition, message: str) -> None:
    model = with_adapters(method, "bert", ("a", "b", "dd"))
    with pytest.raises(ConfigError, match=message):
        activate(model, tree)


def test_batches_that_do_not_fit() -> None:
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    activate(model, BatchSplit("a", "b", batch_sizes=[1, 1]))
    with pytest.raises(ModelError, match="batch of 3 rows for 1 \\+ 1"):
        model(given)
    activate(model, MultiTask("a", "b"))
    with pytest.raises(ModelError, match="adapter_ids"):
        model(given)
    activate(model, Split("a", "b", splits=[20, 1]))
    with pytest.raises(ModelError, match="9 tokens split at 20"):
        model(given)


class TestAdapterDrop:
    @pytest.mark.parametrize("architecture", sorted(MODELS))
    def test_skipped_blocks_are_those_of_the_model_alone(self, architecture: str) -> None:
        model, given = with_adapters("mam", architecture, ("a",)), inputs(architecture)
        activate(model, "a", skipped_layers=[0, 1])
        assert torch.equal(hidden_of(model, given), hidden_of(build(architecture), given))
        activate(model, "a", skipped_layers=[0])
        some = hidden_of(model, given)
        assert not torch.allclose(some, through(model, "a", given), atol=1e-3)

    def test_training_draws_a_depth_from_seed_and_step_alone(self) -> None:
        model = with_adapters("seq_bn", "bert", ("a",))
        activate(model, "a", drop_in_training=2)
        drawn = []
        for _ in range(2):
            for step in range(20):
                model.begin_step(seed=4, step=step)
                drawn.append(model.dropped)
        assert drawn[:20] == drawn[20:]
        assert set(drawn) == {frozenset(), frozenset({"encoder.0"}), frozenset({"encoder.0", "encoder.1"})}
        given = inputs("bert")
        model.dropped = frozenset({"encoder.0", "encoder.1"})
        close(hidden_of(model.train(), given), hidden_of(build("bert"), given))
        assert torch.equal(hidden_of(model.eval(), given), through(model, "a", given))


def test_the_inverse_before_a_tied_head_takes_the_same_way() -> None:
    model = build("llama")
    for seed, name in enumerate("ab"):
        adapter_of(adapter_config({"method": "invertible"})).attach(model, name)
        randomise(model, name, seed=seed)
    given, head = inputs("llama"), model.language_head()
    alone = []
    for name in "ab":
        activate(model, name)
        with torch.no_grad():
            alone.append(head(model(given)))
    activate(model, BatchSplit("b", "a", batch_sizes=[2, 1]))
    with torch.no_grad():
        close(head(model(given)), torch.cat([alone[1][:2], alone[0][2:]]))
        activate(model, Parallel("a", "b"))
        close(head(model(given)), torch.cat(alone))


def test_copies_keep_what_keeps_texts_of_a_row_apart() -> None:
    model, given = with_adapters("seq_bn", "bert"), inputs("bert")
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]).expand(3, -1)
    apart = Inputs(token_ids=given.token_ids, attention_mask=given.attention_mask, groups=groups)
    expected = torch.cat([through(model, name, apart) for name in NAMES])
    close(through(model, Parallel(*NAMES), apart), expected)
    assert not torch.allclose(through(model, Parallel(*NAMES), given), expected, atol=1e-3)


def test_detaching_leaves_nothing_behind() -> None:
    model, names = with_adapters("mam", "bert"), set(build("bert").state_dict())
    activate(model, Stack(*NAMES))
    for name in NAMES:
        Adapter.detach(model, name)
    activate(model, None)
    assert set(model.state_dict()) == names


def test_writing_with_one_adapter_a_row() -> None:
    model, given = with_adapters("lora", "llama", ("a", "b")), inputs("llama")
    alone = {}
    for name in "ab":
        activate(model, name)
        alone[name] = greedy(model, rows(given, [0]), max_new_tokens=5)
    activate(model, Parallel("a", "b"))
    together = greedy(model, rows(given, [0]), max_new_tokens=5)
    assert [list(row) for row in together] == [list(alone["a"][0]), list(alone["b"][0])]


def test_prompts_of_unequal_length_in_front_of_a_source() -> None:
    """A row of a mixed batch is what it would be with its own prompt alone: the shorter one's padding is not read."""
    model, given = build("seq2seq"), inputs("seq2seq")
    for seed, (name, length) in enumerate({"short": 2, "long": 7}.items()):
        adapter_of(adapter_config({"preset": "prompt_tuning", "length": length})).attach(model, name)
        randomise(model, name, seed=seed)
    rows, found = {}, None
    with torch.no_grad():
        for name in ("short", "long"):
            activate(model, name)
            rows[name] = model(given).scatter()
        activate(model, BatchSplit("short", "long", batch_sizes=[1, 2]))
        found = model(given).scatter()
    real = given.attention_mask.unsqueeze(-1)
    expected = torch.cat([rows["short"][:1], rows["long"][1:]])
    torch.testing.assert_close(found * real, expected * real, atol=1e-5, rtol=1e-5)
