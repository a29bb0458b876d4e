"""The recipe: round trip, overrides, and errors that name the key and the nearest known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cypher.config import PRESETS, DataConfig, Recipe, adapter_config, matrix, supports
from cypher.config.presets import OLD_NAMES
from cypher.errors import ConfigError

TEXT_TASKS = ("classify", "regress")
MINIMAL = 'data = { train = ["squadshifts/new_wiki"] }'


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        MINIMAL + "\n[adapter]\nrank = 4\ntargets = ['query', 'up']",
        MINIMAL + "\n[adapter]\npreset = 'unipelt'",
        MINIMAL + "\n[adapter]\nmethod = 'union'\nparts = [{ preset = 'houlsby', dropout = 0.2 }, { method = 'ia3' }]",
        MINIMAL + "\n[task]\nkind = 'classify'\nlabels = ['a', 'b']\nclass_weights = [1.0, 2.5]",
        MINIMAL + "\n[task]\nkind = 'tag'\nscheme = 'none'",
        "[task]\nkind = 'regress'\n[data]\ntrain = ['a.csv']\ncolumns = { text = 'the text', value = 'x' }",
        "name = 'x'\n[data]\ntrain = ['a', 'b']\nlimit = 5\n[train]\nhead_learning_rate = 0.1\n"
        "[precision]\ncompute = 'bf16'",
    ],
)
def test_resolved_recipe_reads_back_equal(text: str) -> None:
    recipe = Recipe.from_toml(text)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_any_text_reads_back_equal() -> None:
    names = ["d😀/é.json", 'quote " and \\ back', "tab\t new\n line", "\x7f \x01 \u2028", "[data]"]
    recipe = Recipe.from_toml(MINIMAL).model_copy(update={"data": DataConfig(train=tuple(names))})
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("key", ["train.learning_rate", "train.checkpoint_seconds", "adapter.alpha"])
def test_numbers_are_finite(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = "):
        Recipe.from_toml(MINIMAL, overrides=[f"{key}={value}"])


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "", "-v", "a b", "a\n"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name = "):
        Recipe.from_toml(MINIMAL, overrides=[f"name={name!r}" if "\n" not in name else 'name="a\\n"'])


def test_a_files_name_that_is_no_runs_name_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "tiny copy.toml"
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"tiny copy.toml: its file's name cannot be .*add name = "):
        Recipe.load(path)
    assert Recipe.load(path, overrides=["name=tiny"]).name == "tiny"


def test_override_takes_toml_values_and_bare_words() -> None:
    recipe = Recipe.from_toml(MINIMAL, overrides=["train.epochs=7", "model.name=minilm-x", "data.train=['f.json']"])
    assert (recipe.train.epochs, recipe.model.name, recipe.data.train) == (7, "minilm-x", ("f.json",))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=1", "did you mean train.epochs?"),
        ("adapter.targets=['querry']", "adapter.targets.0 = 'querry'; did you mean query?"),
        ("adapter.rnk=3", "did you mean adapter.rank?"),
        ("adapter.preset=seq_bm", "no preset is called 'seq_bm'; did you mean seq_bn?"),
        ("adapter.method=bottlenck", "no method is called 'bottlenck'; did you mean bottleneck?"),
        ("adapter={ preset = 'lora', method = 'ia3' }", "preset lora is the method lora"),
        ("adapter={ preset = 'seq_bn', reduction = 8 }", "did you mean adapter.reduction_factor?"),
        ("adapter={ method = 'union', parts = [{ preset = 'lora', rnk = 8 }] }", "did you mean adapter.parts.0.rank?"),
        ("adapter={ method = 'reft', prefix_positions = 0 }", "no position is changed"),
        ("task.kind=clasify", "no task is called 'clasify'; did you mean classify?"),
        ("task={ kind = 'classify', lables = ['a', 'b'] }", "unknown key task.lables; did you mean task.labels?"),
        ("task={ kind = 'classify', labels = ['a', 'a'] }", "recipe: task; task.labels has a label twice"),
        ("task={ kind = 'classify', class_weights = [1.0, 2.0] }", "needs task.labels in the same order"),
        ("task={ kind = 'classify', labels = ['a', 'b'], class_weights = [1.0] }", "needs 2 numbers"),
        ("task={ kind = 'classify', multi_label = true, metric = 'mcc' }", "choose micro_f1, macro_f1 or accuracy"),
        ("task={ kind = 'classify', multi_label = true, logit_adjustment = 1.0 }", "labels that compete"),
        ("task={ kind = 'regress', mean = 1.0 }", "given together"),
        ("data={ train = ['a'], sampling = 'balanced' }", "needs a task of kind classify"),
        ("data={ train = ['a'], columns = { text = 'x' } }", "are for tables"),
        ("traim.epochs=3", "did you mean train?"),
        ("train.epochs=0", "train.epochs = 0"),
        ("task.stride=400", "raise max_length or lower stride"),
        ("name=a/b", "name = 'a/b'"),
        ("nonsense", "section.key=value"),
        ("model.name.more=1", "did you mean"),
    ],
)
def test_wrong_key_or_value_is_one_line_that_says_what_to_change(override: str, said: str) -> None:
    if override == "model.name.more=1":
        override, said = "name.more=1", "is a value, not a table"
        text = "name = 'x'\n" + MINIMAL
    else:
        text = MINIMAL
    with pytest.raises(ConfigError) as caught:
        Recipe.from_toml(text, overrides=[override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data={ train = ['a'], unanswerable = 0.5 }", "makes pairs for extract_span, not for classify"),
        ("data={ train = ['a'], sampling = 'balanced' }", "corrects twice for the same thing"),
    ],
)
def test_sections_that_do_not_go_together(override: str, said: str) -> None:
    text = MINIMAL + "\n[task]\nkind = 'classify'\nclass_weights = 'balanced'"
    with pytest.raises(ConfigError) as caught:
        Recipe.from_toml(text, overrides=[override])
    assert said in str(caught.value)


def test_a_task_without_a_kind_is_span_extraction() -> None:
    assert Recipe.from_toml(MINIMAL + "\n[task]\nmax_length = 300").task.kind == "extract_span"
    assert Recipe.from_toml(MINIMAL).task.kind == "extract_span"


def test_missing_data_section_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data is missing"):
        Recipe.from_toml("")
    with pytest.raises(ConfigError, match="is not TOML"):
        Recipe.from_toml("[data")
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.load(tmp_path / "absent.toml")


def test_every_shipped_recipe_is_valid() -> None:
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
    assert recipes
    for path in recipes:
        assert Recipe.load(path).name


@pytest.mark.parametrize("preset", [*PRESETS, *OLD_NAMES])
def test_presets_are_methods_with_settings(preset: str) -> None:
    config = Recipe.from_toml(MINIMAL, overrides=[f"adapter.preset='{preset}'"]).adapter
    assert config is not None
    assert config == adapter_config(config.model_dump(mode="json"))
    assert config.method == PRESETS[OLD_NAMES.get(preset, preset)]["method"]


def test_supports_refuses_with_a_reason() -> None:
    assert supports(model="bert", adapter="lora", task="extract_span")
    assert "no architecture is called gpt" in supports(model="gpt").reason
    assert "would see" not in supports(model="bert", adapter="unipelt").reason
    assert "left to right" in supports(model="llama").reason
    assert "none of the passage" in supports(model="seq2seq").reason
    assert "would see those after it" in supports(model="llama", adapter="unipelt").reason
    assert all(supports(model=model, task=task) for model in ("bert", "llama", "seq2seq") for task in TEXT_TASKS)
    assert "before the words after it are seen" in supports(model="llama", task="tag").reason
    assert all(row["ok"] or row["reason"] for row in matrix())
