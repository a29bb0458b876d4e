"""What is shipped and how it is made: wheel, source archive, pins, make targets."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cypher import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
# What a make that started the tests would hand on to one started by them.
OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "TORCH", "VENV", "DOCS", "Q"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ["3.10.1", "3.11.4", "3.12.3", "3.13.0"]


def pins(**environment: str) -> dict[str, Requirement]:
    """The pins of constraints.txt that hold in an environment, by name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    held = [pin for pin in requirements if pin.marker is None or pin.marker.evaluate(environment)]
    assert len({pin.name for pin in held}) == len(held), "a package is pinned twice"
    return {canonicalize_name(pin.name): pin for pin in held}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names in the wheel and in the source archive, without their first folder in the latter."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        in_wheel = set(wheel.namelist())
    with tarfile.open(next(folder.glob("*.tar.gz"))) as source:
        in_source = {member.name.partition("/")[2] for member in source.getmembers() if member.isfile()}
    return {"wheel": in_wheel, "source": in_source}


def test_the_wheel_holds_all_that_is_read_at_run_time(archives: dict[str, set[str]]) -> None:
    package = ROOT / "src" / "cypher"
    on_disk = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(package.parent).as_posix() for path in on_disk}
    shipped = {name for name in archives["wheel"] if name.startswith("cypher/")}
    assert shipped == expected
    assert {"cypher/py.typed", "cypher/hub/catalogue.toml", "cypher/data/catalogue.toml"} <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in archives["wheel"])


def test_the_source_archive_builds_and_carries_no_data(archives: dict[str, set[str]]) -> None:
    roots = {name.partition("/")[0] for name in archives["source"]}
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "tests"} <= roots
    assert not roots & {"data", "runs", "shared", ".venv", ".cypher", "dist"}


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == __version__ == importlib.metadata.version("nlp-cypher")


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_range(python: str) -> None:
    held = pins(python_full_version=python, python_version=python.rpartition(".")[0])
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        name = canonicalize_name(requirement.name)
        if name == "nlp-cypher" or (requirement.marker and not requirement.marker.evaluate({"python_version": python})):
            continue
        (pin,) = held[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} is pinned to {pin.version}"


def test_what_is_installed_is_what_is_pinned() -> None:
    held = pins()
    wanted, seen = ["nlp-cypher"], set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen or not (found := list(importlib.metadata.distributions(name=name))):
            continue
        seen.add(name)
        for requirement in map(Requirement, found[0].requires or []):
            extras = PROJECT["optional-dependencies"] if name == "nlp-cypher" else [""]
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(canonicalize_name(requirement.name))
    seen.remove("nlp-cypher")
    assert {"torch", "tokenizers", "sympy"} <= seen
    assert sorted(seen - held.keys()) == [], "run .ci/constraints after a new dependency"
    versions = {name: importlib.metadata.version(name) for name in seen}
    others = {name: version for name, version in versions.items() if version not in held[name].specifier}
    assert others == {}, "run `make setup`"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)


@pytest.mark.parametrize(
    ("question", "documents"),
    [
        ("what's new?", "my docs"),
        ("""a "quoted" word; $HOME `id` $(id) \\ # % ü""", "it's/a $folder"),
        ("--help", "-rf"),
    ],
)
def test_make_ask_hands_over_what_was_typed(tmp_path: Path, question: str, documents: str) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cypher"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:], file=sys.stderr)\n")
    program.chmod(0o755)
    for stamp in (".torch-cpu", ".cypher"):
        (tmp_path / stamp).touch()
    fetched, asked = make("ask", f"VENV={tmp_path}", f"Q={question}", f"DOCS={documents}").stderr.splitlines()
    assert fetched == repr(["models", "fetch", "minilm"])
    assert asked == repr(["qa", "ask", "--", question, documents])


def test_every_promised_make_target_is_in_its_help() -> None:
    shown = make().stdout
    targets = {"setup", "ask", "test", "lint", "bench", "peers", "oracles", "clean", "help"}
    assert set(re.findall(r"^make (\w+)", shown, re.MULTILINE)) == targets
