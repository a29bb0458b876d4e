"""``cypher plan``: a model on the meta device, all plans, one table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cypher.cli.app import run


def test_ten_billion_parameters_as_json(capsys: pytest.CaptureFixture[str]):
    assert run(["plan", "llama-10b", "--world", "64", "--memory", "80GB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == found["trained"] == 10_127_544_320
    assert found["machine"] == {"memory": 80e9, "link": 100e9, "peak": 312e12}
    assert found["work"] == {"batch_size": 128, "sequence_length": 4096, "accumulation": 1, "compute": "bf16"}
    assert all(isinstance(text, str) for text in found["assumptions"])
    assert found["fitting"] == sum(plan["fits"] for plan in found["plans"])
    first = found["plans"][0]
    assert set(first) == {"plan", "bytes", "bubble", "wire_bytes", "step_seconds", "fits"}
    kinds = ("parameters", "gradients", "optimiser", "frozen", "gathered", "activations")
    assert sum(first["bytes"][kind] for kind in kinds) == first["bytes"]["peak"] <= 80e9
    assert first["wire_bytes"]["total"] == sum(first["wire_bytes"][kind] for kind in ("copies", "tensors", "stages"))


def test_a_recipe_with_an_adapter_keeps_most_weights_frozen(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "words.toml"
    recipe.write_text(
        f'[model]\nname = "{tiny_bert}"\n[adapter]\nmethod = "lora"\nrank = 2\n[task]\nkind = "classify"\n'
        'max_length = 16\n[data]\ntrain = ["rows.jsonl"]\n[train]\nbatch_size = 12\n'
    )
    assert run(["plan", str(recipe), "--world", "2", "--memory", "1GB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trained"] < found["parameters"] / 5
    assert (found["work"]["batch_size"], found["work"]["sequence_length"]) == (12, 16)
    whole = next(plan for plan in found["plans"] if plan["plan"].startswith("dp=2") and "zero" not in plan["plan"])
    assert whole["bytes"]["parameters"] == 4 * found["trained"]
    assert whole["bytes"]["frozen"] == 2 * (found["parameters"] - found["trained"])


def test_the_table_and_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "plan.png"
    arguments = ["plan", "bert-large", "--world", "4", "--memory", "16GiB", "--link", "1GB/s", "--plot", str(picture)]
    assert run([*arguments, "--batch-size", "32", "--sequence-length", "128"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split("\t") == ["plan", "held", "in a step", "fits", "waits", "sent", "seconds"]
    assert len(lines) == 13
    assert "a step of 32 rows of 128 tokens in bf16" in err
    assert "assumed: matrix products reach 40% of the peak" in err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        (["llama-10b", "--world", "2", "--memory", "much"], "--memory much: needs a number and a unit, as 80GB", 2),
        (["llama-10b", "--world", "2", "--memory", "0GB"], "--memory 0GB: needs", 2),
        (["llama-10b", "--world", "2", "--memory", "1GB", "--link", "1GHz"], "--link 1GHz: needs", 2),
        (["llama-10b", "--world", "7", "--memory", "80GB", "--batch-size", "4"], "no plan for 7 processes", 2),
        (["llama-9b", "--world", "2", "--memory", "80GB"], "did you mean 'llama-7b'?", 2),
        (["nowhere.toml", "--world", "2", "--memory", "80GB"], "recipe nowhere.toml cannot be read", 2),
        (
            ["llama-10b", "--world", "2", "--memory", "80GB", "--plot", "plan.gif"],
            "plan.gif is no name for a figure",
            2,
        ),
    ],
)
def test_a_wrong_call_is_told_in_a_line(arguments: list[str], told: str, code: int, capsys: pytest.CaptureFixture[str]):
    assert run(["plan", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert told in err


def test_help_loads_no_torch():
    code = (
        "import sys; from cypher.cli.app import run; code = run(['plan', '--help']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Example: cypher plan llama-10b --world 64 --memory 80GB" in done.stdout
