"""Processes of one machine: started, told apart, and all ended, whatever happens to one of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workers import Workers

from cypher.config import ParallelPlan
from cypher.errors import ConfigError, CypherError
from cypher.parallel import meeting
from cypher.parallel.failure import PeerError, explained
from cypher.parallel.launch import launch
from cypher.parallel.meeting import meet
from cypher.parallel.world import joined

WORKER = str(Path(__file__).with_name("launched.py"))
LAUNCHER = f"""
import sys
from cypher.errors import CypherError
from cypher.parallel.launch import launch
try:
    launch([sys.executable, {WORKER!r}, sys.argv[1]], processes=2)
except CypherError as error:
    print("told:", error)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(77)
"""


def start(case: str, **options: object) -> None:
    launch([sys.executable, WORKER, case], processes=2, **options)  # type: ignore[arg-type]


def test_processes_meet_and_their_output_is_told_apart(capfd: pytest.CaptureFixture[str]):
    before, input_before = dict(os.environ), os.fstat(0)
    start("meet", threads=4)
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[rank 1] hello from 1, 2 threads", "hello from 0, 2 threads"]
    assert err == ""
    assert dict(os.environ) == before
    assert os.fstat(0) == input_before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("fail", "rank 1: this one"),
        ("die", "rank 1: was killed (SIGKILL)"),
        ("memory", "rank 1: out of memory on rank 1 of 2"),
    ],
)
def test_the_first_failure_is_told_and_not_its_victims(case: str, told: str, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(CypherError) as failure:
        start(case)
    assert str(failure.value).startswith(told)
    assert failure.value.exit_code == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_processes_are_started_again_after_a_failure():
    told: list[str] = []
    start("fail once", max_restarts=1, tell=told.append)
    assert told == ["attempt 1: rank 1: the first time; all processes were started again"]


def launcher(case: str) -> tuple[subprocess.Popen[str], list[int]]:
    """One that is waiting for its processes, and theirs ids."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, case], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    ids: list[int] = []
    while len(ids) < 2:
        line = process.stdout.readline()
        assert line, "the launcher ended"
        ids += map(int, re.findall(r"waiting as (\d+)", line))
    return process, ids


def are_gone(ids: list[int], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(is_running(number) for number in ids):
            return True
        time.sleep(0.05)
    return False


def is_running(number: int) -> bool:
    """Neither ended nor a zombie that nobody has asked about yet."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout.strip()
    return bool(shown) and not shown.startswith("Z")


@pytest.mark.slow
def test_ctrl_c_ends_all_in_order():
    process, ids = launcher("wait")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out.splitlines()[-1] == "told: interrupted in order"
    assert process.returncode == 130
    assert are_gone(ids, seconds=0.1)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_those_that_do_not_listen():
    process, ids = launcher("stubborn")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 77
    assert are_gone(ids, seconds=0.1)


def test_no_process_outlives_a_launcher_that_was_killed():
    process, ids = launcher("wait")
    process.kill()
    process.wait()
    assert are_gone(ids)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number = int(listener.getsockname()[1])
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(number))
    return number


def test_who_does_not_come_is_named(port: int):
    with pytest.raises(CypherError, match=rf"rank 1, 2 of 3 did not come to 127.0.0.1:{port} within 0.3 s \(here: ra"):
        meet(rank=0, size=3, seconds=0.3)
    with pytest.raises(CypherError, match=rf"rank 1 of 2 found no rank 0 at 127.0.0.1:{port} within 1 s"):
        meet(rank=1, size=2, seconds=1)


def test_a_port_in_use_is_told(port: int):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with pytest.raises(CypherError, match=f"port {port} is in use on the machine of rank 0; set MASTER_PORT"):
            meet(rank=0, size=2, seconds=1)


def test_a_plan_for_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"a plan for 2 processes \(dp=2\) in a run of 4"), joined(ParallelPlan(dp=2)):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2 without RANK"), joined(ParallelPlan(dp=2)):
        pass


def meet_with(version: str) -> str:
    """In a process of its own: what one says whose second process has another version installed."""
    before = meeting.installed_version
    if os.environ["RANK"] == "1":
        meeting.installed_version = lambda: version
    try:
        meet(rank=int(os.environ["RANK"]), size=2, seconds=20)
    except ConfigError as error:
        return str(error)
    finally:
        meeting.installed_version = before
    return "met"


def test_unequal_versions_are_refused_everywhere(workers: Workers):
    told = workers.run(2, meet_with, "9.9")
    assert told[0] == told[1]
    assert re.match(r"rank 1 on \S+ runs cypher 9.9 \(code \w{12}\) with torch \S+, rank 0 on", told[0])
    assert workers.run(2, meet_with, meeting.installed_version()) == ["met", "met"]


def test_other_errors_stay_what_they_are():
    error = RuntimeError("shapes do not fit")
    assert explained(error, rank=1, size=2) is error
    assert isinstance(explained(RuntimeError("Connection closed by peer [::1]:1"), rank=1, size=2), PeerError)
