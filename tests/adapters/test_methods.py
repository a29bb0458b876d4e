"""Every method on every architecture: what it changes, what it never changes, and that its own figures are true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_models import MODELS, WIDTH, build, hidden_of, inputs, randomise

from cypher.adapters.adapter import Adapter, freeze_all_but
from cypher.adapters.folder import load_adapter, save_adapter
from cypher.adapters.methods import adapter_of
from cypher.adapters.prefix import flatten_prefix
from cypher.config import PRESETS, AdapterConfig, InferencePrecision, PrefixConfig, Recipe, adapter_config
from cypher.data.batch import Inputs
from cypher.errors import ConfigError, ModelError
from cypher.layers.state import State
from cypher.models.bert import Bert, BertConfig
from cypher.models.model import Model

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "adapters.md"

# Presets whose middle would be too narrow at this width.
SMALLER = {
    "compacter": {"reduction_factor": 16},
    "compacter++": {"reduction_factor": 16},
    "prefix_tuning": {"length": 4, "bottleneck": 6},
    "prefix_tuning_flat": {"length": 4},
}
# Fresh, these do nothing, or so little that it does not show.
STARTS_AT_NOTHING = {
    *("par_bn", "scaled_par_bn", "compacter", "compacter++", "lora", "dora", "vera", "dvora", "ia3"),
}
FOLDS = {"lora", "dora", "vera", "dvora", "ia3"}
# They average over a whole row, which a decoder may not.
ENCODERS_ONLY = {"unipelt"}

TABLE = [(preset, model) for preset in PRESETS for model in MODELS if model == "bert" or preset not in ENCODERS_ONLY]
DECODERS = [(preset, model) for preset, model in TABLE if model != "bert"]


def config_of(preset: str) -> AdapterConfig:
    return adapter_config({"preset": preset, **SMALLER.get(preset, {})})


def attached(preset: str, architecture: str, *, trained: bool = True) -> Model:
    model = build(architecture)
    adapter_of(config_of(preset)).attach(model, "mine")
    if trained:
        randomise(model, "mine")
    return model.eval()


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_fresh_trained_and_detached(preset: str, architecture: str) -> None:
    model, given = build(architecture), inputs(architecture)
    before, names = hidden_of(model, given), set(model.state_dict())
    method = adapter_of(config_of(preset))
    method.attach(model, "mine")
    same = torch.allclose(hidden_of(model, given), before, atol=1e-5)
    assert same == (preset in STARTS_AT_NOTHING)
    assert names < set(model.state_dict())  # names of the backbone never change
    own = Adapter.parameters_of(model, "mine")
    assert sum(parameter.numel() for parameter in own.values()) == method.num_params(model)
    with pytest.raises(ConfigError, match="attached already"):
        method.attach(model, "mine")
    randomise(model, "mine")
    assert (hidden_of(model, given) - before).abs().max() > 1e-3
    Adapter.detach(model, "mine")
    assert set(model.state_dict()) == names
    assert torch.equal(hidden_of(model, given), before)


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_training_moves_the_adapter_and_nothing_else(preset: str, architecture: str) -> None:
    model, given = attached(preset, architecture, trained=False), inputs(architecture)
    freeze_all_but(model, "mine")
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    own = Adapter.parameters_of(model, "mine")
    start = {name: value.detach().clone() for name, value in own.items()}
    optimiser = torch.optim.Adam(own.values(), lr=2e-2)
    torch.manual_seed(5)
    target = torch.randn(hidden_of(model, given).shape)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = (model(given).scatter() - target).square()[given.attention_mask].mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)
    still = [name for name, value in own.items() if torch.equal(value, start[name])]
    # With an update that starts at zero, what stands before it has no gradient in the first step alone.
    assert not still


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_saved_and_loaded(preset: str, architecture: str, tmp_path: Path) -> None:
    model, given = attached(preset, architecture), inputs(architecture)
    config = config_of(preset)
    save_adapter(tmp_path, model, "mine", config=config, model_name=architecture, dtype=torch.float32)
    other = build(architecture)
    assert load_adapter(tmp_path, other) == "mine"
    assert torch.equal(hidden_of(other, given), hidden_of(model, given))


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_folding_into_the_weights_and_back(preset: str, architecture: str) -> None:
    model, given = attached(preset, architecture), inputs(architecture)
    state, expected = {name: value.clone() for name, value in model.state_dict().items()}, hidden_of(model, given)
    if preset not in FOLDS:
        with pytest.raises(ModelError, match=r"can be folded into a weight|another one for every row"):
            Adapter.merge(model)
    else:
        merged = Adapter.merge(model)
        assert not Adapter.parameters_of(model, "mine")
        torch.testing.assert_close(hidden_of(model, given), expected, atol=1e-4, rtol=1e-4)
        merged.undo()
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(hidden_of(model, given), expected)


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_padding_changes_nothing(preset: str, architecture: str) -> None:
    model = attached(preset, architecture)
    expected = hidden_of(model, inputs(architecture))
    torch.testing.assert_close(
        hidden_of(model, inputs(architecture, padding=4))[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("preset", "architecture"), DECODERS)
def test_no_token_sees_those_after_it(preset: str, architecture: str) -> None:
    model, given = attached(preset, architecture), inputs(architecture)
    token_ids = given.token_ids.clone()
    token_ids[0, 6:] = 59 - token_ids[0, 6:]
    changed = Inputs(token_ids=token_ids, attention_mask=given.attention_mask, source=given.source)
    torch.testing.assert_close(hidden_of(model, changed)[0, :6], hidden_of(model, given)[0, :6])
    assert not torch.allclose(hidden_of(model, changed)[0, 6], hidden_of(model, given)[0, 6])


@pytest.mark.parametrize(("preset", "architecture"), DECODERS)
def test_step_by_step_is_the_same_as_at_once(preset: str, architecture: str) -> None:
    model, given = attached(preset, architecture), inputs(architecture)
    expected = hidden_of(model, given)
    state, steps = State(capacity=30), []
    with torch.no_grad():
        for start, end in ((0, 2), (2, 3), (3, 7), (7, 9)):
            step = Inputs(
                token_ids=given.token_ids[:, start:end],
                attention_mask=given.attention_mask[:, start:end],
                source=given.source,
            )
            steps.append(model(step, state).scatter())
    together = torch.cat(steps, 1) * given.attention_mask.unsqueeze(-1)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_bf16_beside_fp32(preset: str, architecture: str) -> None:
    """What is trained stays fp32 while all else runs in bf16."""
    model, given = attached(preset, architecture), inputs(architecture)
    freeze_all_but(model, "mine")
    model.prepare_training(torch.bfloat16)
    model.lay_out_frozen()
    hidden = model.train()(given).scatter()
    assert hidden.dtype == torch.bfloat16
    hidden.float().square().mean().backward()
    own = Adapter.parameters_of(model, "mine").values()
    assert all(parameter.dtype == torch.float32 and parameter.grad is not None for parameter in own)


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("bf16", 0.02), ("int8", 0.04)])
@pytest.mark.parametrize(("preset", "architecture"), TABLE)
def test_laid_out_for_inference(preset: str, architecture: str, precision: InferencePrecision, error: float) -> None:
    model, given = attached(preset, architecture), inputs(architecture)
    expected = hidden_of(model, given)
    model.pack(precision)
    with torch.inference_mode():
        difference = hidden_of(model, given).float() - expected
    assert difference.abs().mean() < error * expected.abs().mean()


def test_documented_sizes_are_those_of_bert_base() -> None:
    with torch.device("meta"):
        model = Bert(BertConfig(vocabulary_size=30_522, width=768, n_layers=12, n_heads=12, inner_width=3072))
    page = DOCUMENTATION.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| `(\w+)` \|.*\| ([\d,]+) \| (yes|no) \|$", page, flags=re.MULTILINE)
    documented = {
        preset: (method, int(count.replace(",", "")), folds == "yes") for preset, method, count, folds in rows
    }
    configs = {preset: adapter_config({"preset": preset}) for preset in PRESETS}
    sizes = {preset: adapter_of(config).num_params(model) for preset, config in configs.items()}
    assert documented == {preset: (configs[preset].method, sizes[preset], preset in FOLDS) for preset in PRESETS}
    # As published: 12 · (768 · 48 + 48 + 48 · 768 + 768), and twice that.
    assert (sizes["seq_bn"], sizes["double_seq_bn"]) == (894_528, 1_789_056)
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in page


def test_documented_recipes_are_valid() -> None:
    recipes = re.findall(
        r"^```toml\n(.*?)^```", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert [Recipe.from_toml(text).adapter is not None for text in recipes] == [True, True, True, False]


def bottlenecks() -> Iterator[dict[str, object]]:
    for reads in ("update", "normed", "residual"):
        yield {"reads": reads, "norm_before": True, "norm_after": True, "norm_with_residual": True}
        yield {"reads": reads, "norm_after": True, "scale": "channel", "init": "houlsby"}
    yield {"reads": "normed", "residual": "read", "scale": "learned", "leave_out": [0]}
    yield {"gated": True, "places": ["attention", "feedforward"], "dropout": 0.5}


@pytest.mark.parametrize("options", [*bottlenecks()], ids=str)
def test_every_option_of_a_bottleneck_is_trained_and_counted(options: dict[str, object]) -> None:
    model, method = build("bert"), adapter_of(adapter_config({"method": "bottleneck", **options}))
    method.attach(model, "mine")
    freeze_all_but(model, "mine")
    randomise(model, "mine")
    own = Adapter.parameters_of(model, "mine")
    assert sum(parameter.numel() for parameter in own.values()) == method.num_params(model)
    model(inputs("bert")).hidden.square().sum().backward()
    assert all(parameter.grad is not None for parameter in own.values())


@pytest.mark.parametrize("second", sorted(FOLDS))
@pytest.mark.parametrize("first", sorted(FOLDS))
def test_two_fold_in_the_order_they_were_attached(first: str, second: str) -> None:
    model, given = attached(first, "bert"), inputs("bert")
    values = {"targets": ["query", "down"]} if second != "ia3" else {"outputs": ["query"], "inputs": ["down"]}
    adapter_of(adapter_config({"preset": second, **values})).attach(model, "other")
    randomise(model, "other", seed=4)
    expected = hidden_of(model, given)
    merged = Adapter.merge(model)
    torch.testing.assert_close(hidden_of(model, given), expected, atol=1e-4, rtol=1e-4)
    merged.undo()
    assert torch.equal(hidden_of(model, given), expected)


def test_a_prefix_takes_its_share_where_scores_are_asked_for() -> None:
    model, given = attached("prefix_tuning", "bert"), inputs("bert")
    with torch.no_grad():
        hidden = model(given, scores=True).hidden * given.attention_mask.unsqueeze(-1)
    torch.testing.assert_close(hidden, hidden_of(model, given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [*MODELS])
def test_a_flat_prefix_does_the_same(architecture: str, tmp_path: Path) -> None:
    model, config = attached("prefix_tuning", architecture), config_of("prefix_tuning")
    assert isinstance(config, PrefixConfig)
    expected = hidden_of(model, inputs(architecture))
    flat = flatten_prefix(model, "mine", config)
    torch.testing.assert_close(hidden_of(model, inputs(architecture)), expected, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in Adapter.parameters_of(model, "mine").values()) == adapter_of(flat).num_params(model)
    save_adapter(tmp_path, model, "mine", config=flat, model_name=architecture, dtype=torch.float32)
    other = build(architecture)
    load_adapter(tmp_path, other)
    assert torch.equal(hidden_of(other, inputs(architecture)), hidden_of(model, inputs(architecture)))


@pytest.mark.parametrize("architecture", [*MODELS])
def test_the_inverse_undoes_the_change_before_a_tied_head(architecture: str) -> None:
    model = attached("seq_bn_inv", architecture)
    hidden = torch.randn(2, 3, WIDTH)
    mask = torch.ones(2, 3, dtype=torch.bool)
    changed = model.embedding_output(hidden, mask)[0]
    assert not torch.allclose(changed, hidden, atol=1e-2)
    torch.testing.assert_close(model.embedding_output.inverse(changed), hidden, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        with_inverse = model.language_head()(model(inputs(architecture)))
        model.embedding_output.inverse = lambda hidden: hidden  # type: ignore[method-assign]
        assert not torch.allclose(model.language_head()(model(inputs(architecture))), with_inverse, atol=1e-2)


def test_prompts_start_at_tokens() -> None:
    model = build("bert")
    adapter_of(adapter_config({"method": "prompt", "length": 5, "token_ids": [7, 9]})).attach(model, "mine")
    vectors = model.embedding_sites[0].plugs["mine"].vectors
    assert torch.equal(vectors.detach(), model.token_vectors()[[7, 9, 7, 9, 7]])
    with pytest.raises(ConfigError, match="ids below 60"):
        adapter_of(adapter_config({"method": "prompt", "token_ids": [60]})).attach(model, "more")
    with pytest.raises(ConfigError, match="without a tokenizer"):
        adapter_of(adapter_config({"method": "prompt", "text": "answer the question"})).attach(model, "more")


@pytest.mark.parametrize(
    ("values", "architecture", "said"),
    [
        ({"preset": "unipelt"}, "llama", "would see those after it"),
        ({"preset": "unipelt"}, "seq2seq", "would see those after it"),
        ({"preset": "loreft", "suffix_positions": 2}, "llama", "with every token that is written"),
        ({"preset": "loreft", "rank": 99}, "bert", "at most the width"),
        ({"preset": "compacter", "reduction_factor": 10}, "bert", "two multiples of 4 terms"),
        ({"preset": "seq_bn", "leave_out": [7]}, "bert", "a block from 0 to 1"),
        ({"preset": "seq_bn", "places": ["cross_attention"]}, "bert", "a sub-layer of this model"),
        ({"preset": "prefix_tuning", "places": ["cross_attention"]}, "llama", "an attention of this model"),
        ({"preset": "lora", "targets": ["gate"]}, "bert", "a layer of this model"),
        ({"preset": "ia3", "outputs": [], "inputs": []}, "bert", "at least one layer"),
        ({"method": "union", "parts": [{"preset": "lora"}, {"preset": "dora"}]}, "bert", "attached already"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(values: dict, architecture: str, said: str) -> None:
    model = build(architecture)
    names = set(model.state_dict())
    with pytest.raises(ConfigError, match=said):
        adapter_of(adapter_config(values)).attach(model, "mine")
    assert set(model.state_dict()) == names


def test_last_tokens_of_an_encoder_are_found_beside_padding() -> None:
    """Both ends of a row are changed, tied or not; a row too short for both keeps the change of its end."""
    for tied in (False, True):
        model, given = build("bert"), inputs("bert")
        config = adapter_config({"method": "reft", "prefix_positions": 2, "suffix_positions": 4, "tied": tied})
        method = adapter_of(config)
        method.attach(model, "mine")
        own = Adapter.parameters_of(model, "mine")
        assert sum(parameter.numel() for parameter in own.values()) == method.num_params(model)
        site = model.segments["encoder"]["0"].output
        hidden = torch.randn(3, 9, WIDTH)
        site.eval()
        with torch.no_grad():
            moved = (site(hidden, given.attention_mask) != hidden).any(-1)
        assert [row.nonzero().flatten().tolist() for row in moved] == [
            [0, 1, 5, 6, 7, 8],
            [0, 1, 2, 3, 4],
            [0, 1, 3, 4, 5, 6],
        ]
