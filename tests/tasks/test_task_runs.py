"""Tasks on tables from a recipe to a folder that answers: what the data says, what is refused, what comes back."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cypher.config import ClassifyConfig, Recipe
from cypher.data.table import BadRows
from cypher.errors import ConfigError, CypherError, DataError, ModelError
from cypher.models.load import load_model
from cypher.tasks.classify_rows import ROWS, balanced
from cypher.tasks.find_task import find_task
from cypher.tasks.registry import KINDS, kind_of
from cypher.tasks.run import run_recipe
from cypher.tasks.task_folder import load_task
from cypher.tasks.task_kind import Source
from cypher.tasks.use_task import evaluate, predict

PLACES = ["river", "house", "hall", "mill"]
TEXTS = [f"the {animal} is at the {place}" for animal in ("cat", "dog", "cow", "hen", "owl") for place in PLACES]


def classify_rows(n: int = 40) -> list[dict[str, Any]]:
    return [{"sentence": f"{TEXTS[k % 20]} {k}", "where": "wet" if k % 4 == 0 else "dry", "id": k} for k in range(n)]


def tag_rows(n: int = 40) -> list[dict[str, Any]]:
    return [
        {"words": TEXTS[k % 20].split(), "tags": ["O", "B-ANIMAL", "O", "O", "O", "B-PLACE"], "id": k} for k in range(n)
    ]


def regress_rows(n: int = 40) -> list[dict[str, Any]]:
    return [{"text": f"{TEXTS[k % 20]} {k}", "value": 100 + k % 4, "id": k} for k in range(n)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


COLUMNS = '{ text = "sentence", label = "where" }'
TASKS: dict[str, tuple[Any, str, str, str]] = {
    "classify": (classify_rows, ".csv", 'kind = "classify"', f"columns = {COLUMNS}"),
    "classify-several": (classify_rows, ".csv", 'kind = "classify"\nmulti_label = true', f"columns = {COLUMNS}"),
    "tag": (tag_rows, ".jsonl", 'kind = "tag"', ""),
    "regress": (regress_rows, ".jsonl", 'kind = "regress"', ""),
}


def recipe(model: Path, data: Path, task: str, *, more: str = "", adapter: str = "", train: str = "") -> Recipe:
    return Recipe.from_toml(
        f"""
        [model]
        name = "{model}"
        [task]
        {task}
        [data]
        train = ["{data}"]
        development_fraction = 0.3
        {more}
        [train]
        epochs = 2
        batch_size = 8
        learning_rate = 1e-3
        {train}
        [precision]
        compute = "fp32"
        {adapter}
        """,
        name="tiny",
    )


CLASSIFY, COLUMN_LINE = TASKS["classify"][2], TASKS["classify"][3]


@pytest.mark.parametrize("adapter", ["", "[adapter]\nrank = 4\n"], ids=["full", "lora"])
@pytest.mark.parametrize("name", TASKS)
def test_a_run_leaves_a_task_that_answers_as_it_did(name: str, adapter: str, tmp_path: Path, tiny_bert: Path) -> None:
    rows, suffix, task, more = TASKS[name]
    data = write(tmp_path / f"data{suffix}", rows())
    held = write(tmp_path / f"held{suffix}", rows(20))
    more += f'\ndevelopment = ["{held}"]'
    run = run_recipe(recipe(tiny_bert, data, task, more=more, adapter=adapter), folder=tmp_path / "run")
    folder = find_task(run.folder)
    assert folder == run.folder / "task"
    assert (folder / "model").exists() == (adapter == "")
    about = json.loads((folder / "head_config.json").read_text())
    assert (about["kind"], about["calibration"]) == (name.split("-", 1)[0], run.result.calibration)
    trained = load_task(folder)
    assert trained.config == trained.task.config
    found = evaluate(folder, Source(path=held))
    assert found.rows == 20
    # Saved in fp16: a row on the edge may fall to the other side.
    assert found.scores == pytest.approx(run.result.scores, abs=6, rel=0.02)
    answers = list(predict(folder, Source(path=held)))
    assert [{key: row[key] for key in before} for row, before in zip(answers, rows(20), strict=True)] == [
        {key: str(value) if suffix == ".csv" else value for key, value in row.items()} for row in rows(20)
    ]
    assert all("prediction" in row for row in answers)
    again = run_recipe(recipe(tiny_bert, data, task, more=more, adapter=adapter), folder=tmp_path / "run")
    assert again.result.scores == run.result.scores


def test_labels_come_from_the_data_and_are_kept(tmp_path: Path, tiny_bert: Path) -> None:
    data = write(tmp_path / "data.csv", classify_rows())
    run = run_recipe(recipe(tiny_bert, data, CLASSIFY, more=COLUMN_LINE), folder=tmp_path / "run")
    config = load_task(run.folder / "task").config
    assert config.labels == ("dry", "wet")
    assert sum(config.label_counts) < 40  # those held out are not counted
    assert load_task(run.folder / "task").columns == {"text": "sentence", "label": "where"}


def test_a_run_can_start_from_another(tmp_path: Path, tiny_bert: Path) -> None:
    data = write(tmp_path / "data.csv", classify_rows())
    first = run_recipe(recipe(tiny_bert, data, CLASSIFY, more=COLUMN_LINE), folder=tmp_path / "first")
    unmoved = f'start_from = "{first.folder}"\n'
    second = recipe(tiny_bert, data, CLASSIFY, more=COLUMN_LINE, train=unmoved)
    slow = second.model_copy(update={"train": second.train.model_copy(update={"learning_rate": 1e-12})})
    assert run_recipe(slow, folder=tmp_path / "second").result.scores == first.result.scores


WRONG: list[tuple[str, str, str, type[CypherError], str]] = [
    # task, more of [data], rows appended to the file, error, what it says
    (CLASSIFY, "", "", DataError, 'line 2 has no "text"; it has id, sentence, where; set data.columns.text'),
    (CLASSIFY, 'columns = { txet = "sentence" }', "", ConfigError, "did you mean text?"),
    (CLASSIFY, COLUMN_LINE, ",dry,9\n", DataError, "line 42: text is empty"),
    (CLASSIFY, COLUMN_LINE, "x, ,9\n", DataError, "line 42: label is empty"),
    (CLASSIFY + '\nlabels = ["dry", "damp"]', COLUMN_LINE, "", DataError, "line 2: label 'wet' is not one of the"),
    ('kind = "regress"', 'columns = { text = "sentence", value = "where" }', "", DataError, "line 2: value is 'wet'"),
    ('kind = "regress"', 'columns = { text = "sentence", value = "id" }', "x,dry,nan\n", DataError, "value is 'nan'"),
    ('kind = "tag"', 'columns = { words = "sentence", tags = "where" }', "", DataError, "7 words and 1 tags"),
    ('kind = "tag"', 'columns = { words = "where", tags = "where" }', "", DataError, "tag 'wet': needs O, B-TYPE"),
]


@pytest.mark.parametrize(("task", "more", "rows", "error", "said"), WRONG)
def test_what_does_not_fit_is_named_with_its_line(
    task: str, more: str, rows: str, error: type[CypherError], said: str, tmp_path: Path, tiny_bert: Path
) -> None:
    data = write(tmp_path / "data.csv", classify_rows())
    with data.open("a", encoding="utf-8") as file:
        file.write(rows)
    with pytest.raises(error) as caught:
        run_recipe(recipe(tiny_bert, data, task, more=more), folder=tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unseen_label_of_a_development_file_is_an_error_of_its_line(tmp_path: Path, tiny_bert: Path) -> None:
    data = write(tmp_path / "data.csv", classify_rows())
    held = write(tmp_path / "held.csv", [*classify_rows(3), {"sentence": "x", "where": "dyr", "id": 1}])
    given = f'{COLUMN_LINE}\ndevelopment = ["{held}"]'
    with pytest.raises(DataError, match=r"held.csv, line 5: label 'dyr' is not one of the task's"):
        run_recipe(recipe(tiny_bert, data, CLASSIFY, more=given), folder=tmp_path / "run")
    left_out = run_recipe(
        recipe(tiny_bert, data, CLASSIFY, more=given + "\nskip_bad_rows = true"), folder=tmp_path / "other"
    )
    assert left_out.skipped == 1


def prepared(tmp_path: Path, model: Path, more: str, rows: list[dict[str, Any]] | None = None) -> tuple[list, list]:
    data = write(tmp_path / "data.csv", rows or classify_rows())
    given = recipe(model, data, CLASSIFY, more=f"{COLUMN_LINE}\n{more}")
    return ROWS.prepare(given, load_model(str(model))).rows()


@pytest.mark.parametrize(
    ("value", "several", "labels"),
    [
        (" good ", False, ("good",)),
        (3, False, ("3",)),
        (3.0, False, ("3",)),
        (True, False, ("true",)),
        ("3,7,3", True, ("3", "7")),
        ("", True, ()),
        (["a", 2], True, ("a", "2")),
        (5, True, ("5",)),
        ([], False, "label is a list"),
        (0.5, False, "label is a float"),
        (float("nan"), False, "label is a float"),
        ([{}], True, "label is a dict"),
    ],
)
def test_labels_of_every_form(value: Any, several: bool, labels: tuple[str, ...] | str, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"text": "x", "label": value}])
    source = Source(path=data, with_targets=True)
    records = ROWS.records(ClassifyConfig(multi_label=several), source)
    if isinstance(labels, str):
        with pytest.raises(DataError, match=f"line 1: {labels}"):
            next(records)
    else:
        assert next(records).row.labels == labels


def test_a_column_that_no_row_has_is_no_matter_of_bad_rows(tmp_path: Path) -> None:
    data = write(tmp_path / "data.csv", classify_rows(3))
    with pytest.raises(DataError, match=r'has no row that can be read.*line 2 has no "text"'):
        list(ROWS.records(ClassifyConfig(), Source(path=data, bad=BadRows(skip=True))))


def test_parts_are_divided_by_the_text(tmp_path: Path, tiny_bert: Path) -> None:
    doubled = [row for row in classify_rows() for _ in range(2)]
    train, held = prepared(tmp_path, tiny_bert, "", doubled)
    assert len(train) + len(held) == 80
    assert not {row.text for row in train} & {row.text for row in held}
    shuffled, _ = prepared(tmp_path, tiny_bert, "", doubled[::-1])
    assert {row.text for row in shuffled} == {row.text for row in train}


def test_a_limit_is_a_choice_over_the_whole_file(tmp_path: Path, tiny_bert: Path) -> None:
    in_order = sorted(classify_rows(400), key=lambda row: row["where"])
    train, _ = prepared(tmp_path, tiny_bert, "limit = 40", in_order)
    assert len(train) == 40
    assert {row.labels for row in train} == {("dry",), ("wet",)}
    assert train == prepared(tmp_path, tiny_bert, "limit = 40", in_order)[0]


def test_balanced_rows_have_all_labels_equally_often(tmp_path: Path, tiny_bert: Path) -> None:
    natural, _ = prepared(tmp_path, tiny_bert, "")
    made, held = prepared(tmp_path, tiny_bert, 'sampling = "balanced"')
    counts = Counter(row.labels for row in made)
    most = max(Counter(row.labels for row in natural).values())
    assert set(counts.values()) == {most}
    of_rare = Counter(row.text for row in made if row.labels == ("wet",))
    assert max(of_rare.values()) - min(of_rare.values()) <= 1
    assert set(made) == set(natural)
    assert held == prepared(tmp_path, tiny_bert, "")[1]
    assert balanced(natural, 0) == balanced(natural, 0)
    assert balanced([], 0) == []


def test_predicting_streams_rows_one_by_one(tmp_path: Path, tiny_bert: Path) -> None:
    data = write(tmp_path / "data.csv", classify_rows())
    run = run_recipe(recipe(tiny_bert, data, CLASSIFY, more=COLUMN_LINE), folder=tmp_path / "run")
    lines = b'{"sentence": "the cat", "n": 1}\nnothing\n{"sentence": "the dog", "n": [2]}\n'
    bad = BadRows(skip=True)
    answers = list(predict(run.folder / "task", Source(path=Path("-"), stream=io.BytesIO(lines), bad=bad)))
    assert [row["n"] for row in answers] == [1, [2]]
    assert bad.skipped == 1
    with pytest.raises(DataError, match="line 2 is no JSON object"):
        list(predict(run.folder / "task", Source(path=Path("-"), stream=io.BytesIO(lines))))
    taken = b'{"sentence": "the cat", "prediction": 1}\n'
    with pytest.raises(DataError, match='has a field "prediction" already'):
        list(predict(run.folder / "task", Source(path=Path("-"), stream=io.BytesIO(taken))))
    other = b'{"text": "the cat"}\n'
    source = Source(path=Path("-"), stream=io.BytesIO(other), columns={"text": "text"})
    assert len(list(predict(run.folder / "task", source))) == 1


def test_what_is_no_trained_task(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="there is no run in"):
        find_task(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(DataError, match="is not finished"):
        find_task(tmp_path)
    (tmp_path / "head_config.json").write_text('{"kind": "clasify", "config": {}, "calibration": {}}')
    with pytest.raises(ModelError, match="did you mean classify"):
        load_task(find_task(tmp_path))
    assert find_task("minilm-qa").name == "minilm-qa"


def test_every_kind_of_the_recipe_is_registered() -> None:
    from cypher.config import TASK_KINDS

    assert set(KINDS) == set(TASK_KINDS)
    for name in TASK_KINDS:
        assert kind_of(name).config.model_fields["kind"].default == name
