from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cypher.cli.app import GROUPS, run
from cypher.cli.console import one_line, progress_bars, visible

PROGRAM = [sys.executable, "-c", "from cypher.cli import main; main()"]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no data folder, no network."""
    monkeypatch.setenv("CYPHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CYPHER_OFFLINE", "1")
    monkeypatch.delenv("CYPHER_DATA", raising=False)


def test_help_lists_the_groups_quickly_and_loads_no_torch() -> None:
    code = (
        "import sys, time; begun = time.perf_counter(); from cypher.cli.app import run; code = run(['--help']);"
        "print(time.perf_counter() - begun, file=sys.stderr);"
        "heavy = {'torch', 'lancedb', 'matplotlib', 'transformers', 'numpy', 'pydantic'} & set(sys.modules);"
        "print(*heavy, file=sys.stderr); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        took, heavy = done.stderr.splitlines()
        assert (done.returncode, heavy) == (0, "")
        assert all(name in done.stdout for name in GROUPS)
        seconds.append(float(took))
    # The best of three: other work on the machine only ever adds.
    assert min(seconds) <= 0.5


def test_importing_cypher_loads_nothing_heavy() -> None:
    code = "import sys, cypher; dir(cypher); print(*{'torch', 'pydantic', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_the_public_surface_is_real() -> None:
    import cypher

    for name in cypher._HOMES:
        assert getattr(cypher, name).__module__.startswith(cypher._HOMES[name]), name
    assert set(cypher._HOMES) <= set(dir(cypher))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cypher.nothing  # noqa: B018


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_group_that_is_listed_exists(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([group, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"cypher {group}" in shown
    assert "completion" not in shown


@pytest.mark.parametrize(
    "command",
    [
        ["models", "list"],
        ["models", "fetch"],
        ["models", "info"],
        ["models", "export"],
        ["models", "matrix"],
        ["data", "list"],
        ["data", "fetch"],
        ["doctor"],
    ],
)
def test_every_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    assert f"Example: cypher {' '.join(command)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["models", "fetch", "minilm"], 1, "error: minilm is not in the cache and the network is off; run `cypher mo"),
        (["models", "fetch", "minlm"], 2, "error: model 'minlm' (did you mean 'minilm'?): needs"),
        (["models", "info", "./none"], 2, "error: there is no folder ./none"),
        (["models", "export", "nonsense", "out"], 2, "error: model 'nonsense'"),
        (["models", "export", "smollm2", "out"], 2, "error: smollm2 is a GGUF model: needs safetensors"),
        (["data", "fetch", "nothing"], 2, "error: data set 'nothing': needs"),
        (["modles"], 2, "error: No such command 'modles'. Did you mean 'models'?; see `cypher --help`"),
        (["models", "lst"], 2, "error: No such command 'lst'. Did you mean 'list'?; see `cypher models --help`"),
        (["--colour"], 2, "error: No such option: --colour"),
        (["models", "list", "--jsn"], 2, "error: No such option: --jsn"),
        (["models", "fetch"], 2, "error: Missing argument"),
    ],
)
def test_an_error_is_one_line_and_an_honest_code(
    arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_the_traceback_wherever_it_stands(place: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "fetch", "minilm"]
    arguments.insert(place, "--debug")
    assert run(arguments) == 1
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.splitlines()[-1].startswith("error: minilm")


def test_a_mistake_of_ours_is_one_line_too() -> None:
    code = (
        "import cypher.cli.app as app; app.run = lambda arguments: 1 / 0; import sys;"
        "sys.exit(app.run_as_program(sys.argv[1:]))"
    )
    plain = subprocess.run([sys.executable, "-c", code, "x"], capture_output=True, text=True, timeout=60)
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: unexpected ZeroDivisionError at app.py:")
    assert plain.stderr.count("\n") == 1
    debug = subprocess.run([sys.executable, "-c", code, "--debug"], capture_output=True, text=True, timeout=60)
    assert "Traceback" in debug.stderr


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    import cypher

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cypher {cypher.__version__}\n"
    assert run([]) == 0
    assert "Usage: cypher" in capsys.readouterr().out
    assert run(["models"]) == 2
    printed = capsys.readouterr()
    assert "Usage: cypher models" in printed.out + printed.err
    assert "error" not in printed.err


def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "NO_PROXY": "127.0.0.1",
        }
        del environment["CYPHER_OFFLINE"]
        process = subprocess.Popen(
            [*PROGRAM, "models", "fetch", "owner/name"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "error: interrupted; what was already written is kept\n"


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    process = subprocess.Popen([*PROGRAM, "models", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


def test_control_characters_never_reach_the_terminal() -> None:
    assert visible("a\x1b[31mred\x07 Zürich 中\tz") == "a�[31mred� Zürich 中\tz"


def test_white_space_is_no_control_character() -> None:
    assert one_line(" one\r\ntwo\fthree\v four\u2028five\x85\x1b ") == "one two three four five �"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["models", "list"], {"models", "cache"}),
        (["models", "matrix"], {"matrix"}),
        (["models", "info", "minilm"], {"name", "licence", "sources", "files", "path", "bytes"}),
        (["data", "list"], {"data"}),
        (["doctor"], {"python", "torch", "torch_threads", "cpu", "cache", "models", "data", "optional", "problems"}),
    ],
)
def test_json_is_exactly_one_object(command: list[str], keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert keys <= json.loads(printed.out).keys()
    assert printed.out.count("\n") == 1
    assert printed.err == ""


def test_bars_are_for_a_terminal_and_only_when_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    with progress_bars() as progress:
        assert progress is None
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars(of_bytes=True) as progress:
        assert progress is not None
    assert screen.getvalue() == ""
    with progress_bars() as progress:
        assert progress is not None
        progress("fetching minilm", 1, 4)
    assert "fetching minilm" in screen.getvalue()
