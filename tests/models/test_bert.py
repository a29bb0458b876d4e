"""BERT equals transformers' with copied weights; its names, sizes and limits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers

from cypher.data.batch import Inputs
from cypher.errors import ModelError
from cypher.layers.kernels import int8_is_exact
from cypher.layers.linear import Linear
from cypher.layers.sites import EmbeddingPlug
from cypher.models.bert import NAME_MAP, Bert, BertConfig
from cypher.models.model import Encoded

SIZES = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24},
    "small": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96},
    "deep": {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 200},
}


def oracle(family: str, size: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    configuration = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[family](
        vocab_size=60, max_position_embeddings=40, type_vocab_size=2 if family == "bert" else 1, **SIZES[size]
    )
    model = {"bert": transformers.BertModel, "roberta": transformers.RobertaModel}[family](configuration).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the default is so small that errors would hide in it
    return model


def ours_of(model: transformers.PreTrainedModel) -> Bert:
    bert = Bert(BertConfig.from_checkpoint(model.config.to_dict())).eval()
    state = {NAME_MAP.to_ours(name): value for name, value in model.state_dict().items() if NAME_MAP.to_ours(name)}
    bert.load_state_dict(state)
    return bert


def example(family: str) -> Inputs:
    token_ids = torch.randint(3, 60, (4, 23))
    mask = torch.arange(23) < torch.tensor([23, 11, 1, 17]).unsqueeze(1)
    pad = 0 if family == "bert" else 1
    segments = torch.randint(0, 2, (4, 23)) if family == "bert" else None
    return Inputs(token_ids=token_ids.where(mask, pad), attention_mask=mask, segment_ids=segments)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_equals_transformers_with_padding(family: str, size: str) -> None:
    theirs, inputs = oracle(family, size), example(family)
    bert = ours_of(theirs)
    with torch.inference_mode():
        expected = theirs(
            inputs.token_ids, attention_mask=inputs.attention_mask.long(), token_type_ids=inputs.segment_ids
        )
        encoded = bert(inputs)
        pooled = bert.pooled(encoded)
    kept = inputs.attention_mask
    torch.testing.assert_close(encoded.hidden[kept], expected.last_hidden_state[kept], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=1e-5)


def test_masked_language_modelling_equals_transformers() -> None:
    base = oracle("bert", "small").config
    theirs = transformers.BertForMaskedLM(base).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {NAME_MAP.to_ours(name): value for name, value in theirs.state_dict().items() if NAME_MAP.to_ours(name)}
    changes = {"with_pooler": False, "with_prediction": True}
    bert = Bert(BertConfig.from_checkpoint(base.to_dict()).model_copy(update=changes)).eval()
    bert.load_state_dict(state)
    inputs = example("bert")
    with torch.inference_mode():
        expected = theirs(
            inputs.token_ids, attention_mask=inputs.attention_mask.long(), token_type_ids=inputs.segment_ids
        ).logits
        found = bert.language_head()(bert(inputs))
    torch.testing.assert_close(found[inputs.attention_mask], expected[inputs.attention_mask], atol=1e-4, rtol=1e-5)
    assert list(bert.language_head().parameters()) == [], "its weights are the model's"
    with pytest.raises(ModelError, match="no head that predicts tokens"):
        ours_of(oracle("bert", "tiny")).language_head()


def test_names_map_both_ways_without_a_rest() -> None:
    theirs = oracle("bert", "small")
    names = [name for name in theirs.state_dict() if not name.endswith("position_ids")]
    assert [NAME_MAP.to_theirs(NAME_MAP.to_ours(name)) for name in names] == names
    assert NAME_MAP.to_ours("bert.embeddings.LayerNorm.gamma") == "embeddings.norm.weight"
    assert NAME_MAP.to_ours("cls.seq_relationship.bias") is None


@pytest.mark.parametrize("size", SIZES)
def test_num_params_formula_is_reality(size: str) -> None:
    for with_pooler, with_prediction in ((True, False), (False, False), (False, True)):
        config = BertConfig.from_checkpoint(oracle("bert", size).config.to_dict())
        config = config.model_copy(update={"with_pooler": with_pooler, "with_prediction": with_prediction})
        assert config.num_params() == sum(parameter.numel() for parameter in Bert(config).parameters())


@pytest.mark.parametrize(
    ("precision", "least"),
    [
        ("fp32", 0.99999),
        ("bf16", 0.999),
        pytest.param(
            "int8", 0.99, marks=pytest.mark.skipif(not int8_is_exact(), reason="8-bit products overflow here")
        ),
    ],
)
def test_packed_weights_are_the_same_function(precision: str, least: float) -> None:
    inputs = example("bert")
    bert = ours_of(oracle("bert", "small"))
    with torch.inference_mode():
        expected = bert(inputs).hidden
        bert.pack(precision)
        packed = bert(inputs).hidden.float()
    kept = inputs.attention_mask
    if precision == "fp32":
        torch.testing.assert_close(packed[kept], expected[kept], atol=1e-4, rtol=0)
    assert torch.cosine_similarity(packed[kept], expected[kept]).min() > least
    left = [name for name, module in bert.named_modules() if isinstance(module, Linear) and module.weight.numel()]
    assert left == [], "a weight is kept twice"


def test_too_long_a_row_and_other_families_are_refused() -> None:
    bert = ours_of(oracle("bert", "tiny"))
    long = torch.ones(1, 41, dtype=torch.int64)
    with pytest.raises(ModelError, match="41 tokens in a row: needs at most 40"):
        bert(Inputs(token_ids=long, attention_mask=long.bool()))
    config = oracle("bert", "tiny").config.to_dict()
    for change, said in (
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"position_embedding_type": "relative_key"}, "absolute"),
        ({"hidden_act": "swish2"}, "hidden_act"),
    ):
        with pytest.raises(ModelError, match=said):
            BertConfig.from_checkpoint({**config, **change})
    with pytest.raises(ModelError, match="hidden_size"):
        BertConfig.from_checkpoint({"model_type": "bert", "vocab_size": 3})


def test_scatter_puts_kept_tokens_back() -> None:
    hidden = torch.arange(6.0).reshape(1, 3, 2) + 1
    encoded = Encoded(
        hidden=hidden,
        mask=torch.tensor([[True, True, False]]),
        positions=torch.tensor([[0, 3, 1]]),
        row_of=torch.tensor([0]),
        seq=5,
    )
    assert encoded.scatter()[0].tolist() == [[1, 2], [0, 0], [0, 0], [3, 4], [0, 0]]
    whole = dataclasses.replace(encoded, seq=3)
    assert whole.scatter() is hidden


class TwoInFront(EmbeddingPlug):
    """Rows in front that are no tokens."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        front = torch.linspace(-1, 1, 2 * hidden.shape[-1]).view(1, 2, -1).expand(len(hidden), -1, -1)
        return torch.cat([front, hidden], 1), torch.nn.functional.pad(mask, (2, 0), value=True)


def grouped() -> Inputs:
    """A row that two texts go on from, and a shorter one with a single text behind it."""
    groups = torch.tensor([[0] * 9 + [1] * 5 + [2] * 6, [0] * 6 + [1] * 4 + [0] * 10])
    places = [[*range(9), *range(9, 14), *range(9, 15)], [*range(10), *[0] * 10]]
    mask = torch.arange(20) < torch.tensor([20, 10]).unsqueeze(1)
    token_ids = torch.randint(3, 60, (2, 20)).where(mask, 0)
    segments = (groups > 0).long()
    return Inputs(
        token_ids=token_ids,
        attention_mask=mask,
        segment_ids=segments,
        positions=torch.tensor(places),
        groups=groups,
    )


def test_texts_that_share_a_beginning_equal_transformers_under_their_mask() -> None:
    theirs, inputs = oracle("bert", "small"), grouped()
    bert = ours_of(theirs)
    groups = inputs.groups
    assert groups is not None
    allowed = torch.zeros(2, 1, 20, 20)
    for row in range(2):
        for query in range(20):
            for key in range(20):
                sees = groups[row, key] in (0, groups[row, query]) and bool(inputs.attention_mask[row, key])
                allowed[row, 0, query, key] = 0.0 if sees or query == key else -1e9
    with torch.inference_mode():
        expected = theirs(
            inputs.token_ids,
            attention_mask=allowed,
            token_type_ids=inputs.segment_ids,
            position_ids=inputs.positions,
        ).last_hidden_state
        hidden = bert(inputs).hidden
        training = bert.train()(inputs).hidden
    kept = inputs.attention_mask
    torch.testing.assert_close(hidden[kept], expected[kept], atol=1e-5, rtol=1e-5)
    assert training.isfinite().all()


def test_what_is_put_in_front_is_shared_by_all_groups() -> None:
    bert, inputs = ours_of(oracle("bert", "small")), grouped()
    bert.embedding_output.plugs["two"] = TwoInFront()
    assert inputs.groups is not None
    assert inputs.positions is not None
    with torch.inference_mode():
        together = bert(inputs).hidden[:1, 2:]
        for group in (1, 2):
            kept = (inputs.groups[:1] == 0) | (inputs.groups[:1] == group)
            alone = Inputs(
                **{
                    name: getattr(inputs, name)[:1][kept].unsqueeze(0)
                    for name in ("token_ids", "attention_mask", "segment_ids", "positions", "groups")
                }
            )
            torch.testing.assert_close(bert(alone).hidden[:, 2:], together[kept].unsqueeze(0), atol=1e-5, rtol=1e-5)


def test_positions_count_not_tokens_where_they_are_given() -> None:
    bert = ours_of(oracle("bert", "tiny"))
    token_ids = torch.randint(3, 60, (1, 50))
    mask = torch.ones(1, 50, dtype=torch.bool)
    places = torch.arange(50).remainder(40).unsqueeze(0)
    assert bert(Inputs(token_ids=token_ids, attention_mask=mask, positions=places)).hidden.shape[1] == 50
    with pytest.raises(ModelError, match="41 tokens in a row: needs at most 40"):
        bert(Inputs(token_ids=token_ids, attention_mask=mask, positions=places.where(places < 39, 40)))
