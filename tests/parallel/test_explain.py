"""What the plan says of memory, beside what processes really hold and what a step really keeps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import token_task
import torch
from token_task import FAMILIES, TokenTask, learn, model_of
from torch.distributed.tensor import DTensor
from workers import Workers

from cypher.adapters.adapter import freeze_all_but
from cypher.adapters.methods import adapter_of
from cypher.config import ParallelPlan, adapter_config
from cypher.data.batch import Inputs
from cypher.models.bert import Bert, BertConfig
from cypher.models.headed import HeadedModel
from cypher.models.llama import Llama, LlamaConfig
from cypher.models.model import Model
from cypher.models.sizes import preset_model
from cypher.parallel.activations import BlockProfile, Workload, activation_bytes, in_flight, profile
from cypher.parallel.engine import Engine
from cypher.parallel.explain import explain
from cypher.parallel.holding import blocks_by_rank
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import joined

PLANS = [
    *("dp=2", "dp=2,zero=1", "dp=2,zero=2", "dp=2,zero=3", "dp=4,zero=1", "dp=4,zero=3", "dp=4,zero=3,replicas=2"),
    *("pp=2", "pp=2,schedule=interleaved", "pp=2,schedule=dualpipe_v", "pp=4", "dp=2,pp=2,zero=1", "dp=2,pp=2,zero=3"),
    *("tp=2", "tp=4", "tp=2,sequence_parallel", "dp=2,tp=2", "dp=2,tp=2,zero=3", "pp=2,tp=2"),
]


def adapted(family: str, preset: str) -> Model:
    model = model_of(family)
    if preset:
        adapter_of(adapter_config({"preset": preset})).attach(model, "mine")
        freeze_all_but(model, "mine")
    return model


def meta(family: str, preset: str = "") -> HeadedModel:
    with torch.device("meta"):
        model = adapted(family, preset)
        return HeadedModel(model, model.language_head())


def held(text: str, family: str, preset: str = "") -> dict[str, int]:
    """Bytes of one process after a step, by kind."""
    with joined(ParallelPlan.parse(text)) as world:
        model = adapted(family, preset)
        engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
        optimisers: list[torch.optim.Optimizer] = []
        token_task.build_optimiser, before = keeping(token_task.build_optimiser, optimisers), token_task.build_optimiser
        try:
            learn(engine, steps=1)
        finally:
            token_task.build_optimiser = before
        return bytes_of(engine, optimisers[0])


def keeping(build: Any, kept: list[torch.optim.Optimizer]) -> Any:
    """The optimiser that a run makes, with the gradients of its step."""

    def built(*arguments: Any) -> torch.optim.Optimizer:
        optimiser: torch.optim.Optimizer = build(*arguments)
        optimiser.zero_grad = lambda *_, **__: None  # type: ignore[method-assign]
        kept.append(optimiser)
        return optimiser

    return built


def bytes_of(engine: Engine, optimiser: torch.optim.Optimizer) -> dict[str, int]:
    parameters = list(engine.trained.values())
    state = getattr(optimiser, "optim", optimiser).state
    return {
        "parameters": sum(size(parameter) for parameter in parameters),
        "gradients": sum(size(parameter.grad) for parameter in parameters if parameter.grad is not None),
        "optimiser": sum(size(value) for values in state.values() for value in values.values()),
    }


def size(tensor: torch.Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[pytest.mark.slow] * (family != "encoder_decoder")) for family in FAMILIES]
)
@pytest.mark.parametrize("text", PLANS)
def test_what_is_said_is_what_is_held(workers: Workers, text: str, family: str):
    plan = ParallelPlan.parse(text)
    found = workers.run(plan.world, held, text, family)
    said = explain(plan, meta(family)).worst
    for kind in ("parameters", "gradients", "optimiser"):
        assert getattr(said, kind) == pytest.approx(max(rank[kind] for rank in found), rel=0.02), kind


@pytest.mark.parametrize("text", ["pp=2", "pp=2,schedule=interleaved", "tp=2"])
def test_each_stage_holds_what_adapters_of_all_blocks_share(workers: Workers, text: str):
    found = workers.run(2, held, text, "encoder", "prefix_tuning")
    said = explain(ParallelPlan.parse(text), meta("encoder", "prefix_tuning"))
    for place, rank in enumerate(said.ranks):
        assert (rank.parameters, rank.gradients, rank.optimiser) == tuple(found[place].values())


def test_one_process_holds_sixteen_bytes_a_parameter():
    model = preset_model("bert-large")
    numbers = sum(parameter.numel() for parameter in model.parameters())
    whole = explain(ParallelPlan(), HeadedModel(model, model.language_head())).worst
    assert whole.held == 16 * numbers + 4 * len(list(model.parameters()))
    assert (whole.gathered, whole.activations, whole.frozen) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [("dp=4,zero=3", 0.25), ("dp=4,zero=1", 0.625), ("tp=4", 0.25), ("pp=4", 0.256), ("dp=2,tp=2,zero=3", 0.25)],
)
def test_four_processes_hold_their_share(text: str, share: float):
    """ZeRO's shares are those of Rajbhandari et al. 2019, figure 1; stages at the ends hold the tables as well."""
    model = preset_model("llama-10b")
    headed = HeadedModel(model, model.language_head())
    whole = explain(ParallelPlan(), headed).worst.held
    assert explain(ParallelPlan.parse(text), headed).worst.held / whole == pytest.approx(share, rel=0.01)


def test_frozen_weights_have_no_gradient_and_the_format_of_the_products():
    headed = meta("encoder")
    for name, parameter in headed.named_parameters():
        parameter.requires_grad = "norm" in name
    numbers = {
        is_trained: sum(p.numel() for p in headed.parameters() if p.requires_grad == is_trained)
        for is_trained in (True, False)
    }
    said = explain(ParallelPlan(), headed, Workload(batch_size=8, sequence_length=16)).worst
    assert (said.parameters, said.gradients, said.frozen) == (
        4 * numbers[True],
        4 * numbers[True],
        2 * numbers[False],
    )


def kept(model: Model, *, rows: int, seq: int) -> int:
    """Bytes that autograd keeps of a forward, weights themselves aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(1, 50, (rows, seq))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        encoded = model.train()(Inputs(token_ids=ids, attention_mask=ids > 0))
    assert encoded.hidden.requires_grad
    return sum(sizes.values())


def llama(n_layers: int) -> Model:
    sizes = {"width": 64, "n_heads": 4, "n_key_value_heads": 2, "inner_width": 160}
    return Llama(LlamaConfig(vocabulary_size=50, n_layers=n_layers, **sizes))


def bert(n_layers: int) -> Model:
    sizes = {"width": 64, "n_heads": 4, "inner_width": 256, "dropout": 0.0, "attention_dropout": 0.0}
    return Bert(BertConfig(vocabulary_size=50, n_layers=n_layers, **sizes))


def profiles(model: Model) -> list[BlockProfile]:
    return [profile(block, model.width) for _, block in model.blocks()]


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("build", [llama, bert])
def test_the_estimate_of_activations_is_near_what_a_block_keeps(build: Any, compute: Any):
    work = Workload(batch_size=4, sequence_length=32, compute=compute)
    found = []
    for n_layers in (2, 4):
        model = build(n_layers)
        model.prepare_training(torch.bfloat16 if compute == "bf16" else torch.float32)
        found.append(kept(model, rows=4, seq=32))
    said = [activation_bytes(profiles(build(n)), ParallelPlan(), work) for n in (2, 4)]
    assert said[1] - said[0] == pytest.approx(found[1] - found[0], rel=0.1)


def test_checkpointing_keeps_the_input_of_a_block():
    model = preset_model("llama-10b")
    plan, work = ParallelPlan(activation_checkpointing=True), Workload(batch_size=1, sequence_length=4096)
    whole = activation_bytes(profiles(model), ParallelPlan(), work)
    inputs = 48 * 4096 * 4096 * 2
    assert activation_bytes(profiles(model), plan, work) == inputs + whole // 48


@pytest.mark.parametrize(
    ("schedule", "counts"),
    [
        ("gpipe", [8, 8, 8, 8]),
        ("1f1b", [4, 3, 2, 1]),
        ("interleaved", [5.5, 4.5, 3.5, 2.5]),
        ("zbv_zero_bubble", [4, 4, 4, 4]),
    ],
)
def test_how_many_micro_batches_are_in_flight(schedule: Any, counts: list[float]):
    plan = ParallelPlan(pp=4, schedule=schedule)
    assert [in_flight(plan, rank) for rank in range(4)] == counts


def test_every_block_is_on_one_rank_and_v_shaped_pipelines_come_back():
    model = preset_model("bert-large")
    for text in ("pp=4", "pp=5", "pp=4,schedule=interleaved", "pp=4,schedule=dualpipe_v"):
        ranks = blocks_by_rank(model, ParallelPlan.parse(text))
        assert sorted(itertools.chain(*ranks)) == sorted(name for name, _ in model.blocks())
        assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
    assert (ranks[0][0], ranks[0][-1]) == ("encoder.0", "encoder.23")
