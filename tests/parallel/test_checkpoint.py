"""Checkpoints: saved under one plan, read under every other to the last bit; whole or not there; one error for all."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from token_task import TokenTask, model_of, rows_of
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from workers import CaseError, Workers, ranks

from cypher.config import ParallelPlan, TrainConfig
from cypher.errors import DataError, ModelError
from cypher.models.headed import HeadedModel
from cypher.parallel.checkpoint import ABOUT, Saving, consolidate, load, save
from cypher.parallel.engine import Engine
from cypher.parallel.optimiser_state import optimiser_tensors
from cypher.parallel.parallelise import parallelise
from cypher.parallel.world import World, joined
from cypher.train.checkpoint import Checkpoints, Position
from cypher.train.loop import train
from cypher.train.optimiser import build_optimiser
from cypher.train.progress import Silence, read_metrics

ALONE = World(plan=ParallelPlan())
# What is divided by hand, as plans divide it: pieces of matrices, of both sides, of one side twice, and stages.
BY_HAND = {
    "columns": "dp=2,zero=3",
    "stages": "dp=2",
    "rows": "dp=4,zero=3",
    "grid": "dp=4,zero=3,replicas=2",
    "twice": "dp=4,zero=3,replicas=2",
    "copied rows": "dp=4,zero=3,replicas=2",
}
LAYOUTS = (
    *("dp=1", "dp=2", "dp=2,zero=1", "dp=2,zero=3", "tp=2", "pp=2", "columns", "stages"),
    *(
        "dp=4,zero=1",
        "dp=4,zero=3",
        "dp=4,zero=3,replicas=2",
        "dp=2,tp=2,zero=3",
        "pp=2,tp=2",
        "rows",
        "grid",
        "twice",
        "copied rows",
    ),
)
POSITION = Position(step=3, best_score=0.25, rows="digest")


def trained(world: World) -> tuple[Engine, torch.optim.Optimizer]:
    model = model_of("decoder")
    engine = parallelise(HeadedModel(model, TokenTask().head(model)), world)
    return engine, build_optimiser(engine, TrainConfig())


def everything(engine: Engine, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Of this process."""
    named = engine.trained
    return {f"model.{name}": value.detach() for name, value in named.items()} | optimiser_tensors(optimiser, named)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of one process; the optimiser remembers nothing of one of the parameters."""
    folder = tmp_path_factory.mktemp("first")
    engine, optimiser = trained(ALONE)
    for step in range(3):
        engine.headed.train()
        engine.headed.zero_grad()
        batch = TokenTask().collate([(row, 0) for row in rows_of(step)])
        TokenTask().step(engine.headed, batch)["tokens"].total.backward()
        optimiser.step()
    del optimiser.state[next(iter(engine.trained.values()))]
    checkpoints = Checkpoints(folder, engine, optimiser)
    checkpoints.begin(POSITION)
    checkpoints.finish()
    return folder


def by_hand(layout: str, whole: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """This process's part of tensors that are divided without a model."""
    assert world.mesh is not None
    if layout == "stages":
        middle = len(whole) // 2
        names = list(whole)[: middle + 1] if world.rank == 0 else list(whole)[middle:]  # one is on both
        return {name: torch.zeros_like(whole[name]) for name in names}
    mesh = world.mesh["replicate", "shard"] if world.plan.replicas > 1 else world.mesh["shard"]
    placements = {
        "columns": [Shard(1)],
        "rows": [Shard(0)],
        "grid": [Shard(0), Shard(1)],
        "twice": [Shard(0), Shard(0)],
        "copied rows": [Replicate(), Shard(0)],
    }[layout]

    def divided(value: Tensor) -> Tensor:
        if not value.ndim:
            return torch.zeros(())
        fits = [Replicate() if getattr(one, "dim", 0) >= value.ndim else one for one in placements]
        return distribute_tensor(torch.zeros_like(value), mesh, fits, src_data_rank=None)

    return {name: divided(value) for name, value in whole.items()}


def plan_of(layout: str) -> ParallelPlan:
    return ParallelPlan.parse(BY_HAND.get(layout, layout))


def read_and_written(layout: str, first: Path, sources: list[Path], target: Path | None) -> set[str]:
    """Read each source under one layout, compare all of it with what the first holds, and write the last again."""
    whole = consolidate(first)
    with joined(plan_of(layout)) as world:
        kept: dict[str, Tensor] = {}
        engine, optimiser = trained(world)
        for source in sources:
            if layout in BY_HAND:
                own = by_hand(layout, whole, world)
                assert Position(**load(source, own, world)) == POSITION
            else:
                optimiser = build_optimiser(engine, TrainConfig())
                for parameter in engine.trained.values():
                    parameter.detach().zero_()
                checkpoints = Checkpoints(source.parent, engine, optimiser)
                assert checkpoints.load() == POSITION
                own = everything(engine, optimiser)
            if not kept:
                for name, value in own.items():
                    found = value.full_tensor() if isinstance(value, DTensor) else value
                    assert torch.equal(found, whole[name]), name
                kept = {name: local(value) for name, value in own.items()}
            assert own.keys() == kept.keys()
            for name, value in own.items():
                assert torch.equal(local(value), kept[name]), (source, name)
        if target is not None:
            save(target, own, asdict(POSITION), world)
        return set().union(*world.gathered(set(own)))


def local(value: Tensor) -> Tensor:
    return (value.to_local() if isinstance(value, DTensor) else value).clone()


@pytest.fixture(scope="module")
def written(workers: Workers, first: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What each layout wrote after it had read what the one before it wrote."""
    found, folder = [first / "step-00000003"], tmp_path_factory.mktemp("ring")
    for layout in LAYOUTS:
        target = folder / layout.replace(" ", "-") / "step-00000003"
        arguments = (layout, found[0], found[-1:], target)
        assert ranks(workers.run(plan_of(layout).world, read_and_written, *arguments)) == consolidate(found[0]).keys()
        found.append(target)
    return found


def test_a_ring_through_all_layouts_changes_nothing(written: list[Path]) -> None:
    whole = consolidate(written[0])
    assert any(key.startswith("optimiser.") for key in whole)
    for folder in written[1:]:
        assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
        again = consolidate(folder)
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[name], value) for name, value in whole.items()), folder


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_what_every_other_wrote(workers: Workers, written: list[Path], layout: str) -> None:
    workers.run(plan_of(layout).world, read_and_written, layout, written[0], written, None)


STRANGE = {
    "number": torch.tensor(3.5),
    "truth": torch.tensor([True, False, True]),
    "counts": torch.arange(7),
    "nothing": torch.zeros(0, 3),
    "half": torch.arange(9.0).bfloat16(),
    "turned": torch.arange(24.0).view(4, 6).t(),
    "few rows": torch.arange(6.0).view(3, 2),
    "odd": torch.arange(35.0).view(7, 5),
    "view": torch.arange(9.0)[2:6],
}


def strange(folder: Path) -> dict[str, int]:
    """Kinds of tensors that a writer or reader might not expect, divided unevenly over four processes."""
    with joined(ParallelPlan.parse("dp=4,zero=3")) as world:
        assert world.mesh is not None
        own = {
            name: distribute_tensor(value, world.mesh["shard"], [Shard(0)], src_data_rank=None)
            if name in ("few rows", "odd", "turned")
            else value
            for name, value in STRANGE.items()
        }
        save(folder, own, {}, world)
        found = {name: torch.zeros_like(value) for name, value in own.items()}
        load(folder, found, world)
        for name, value in found.items():
            assert torch.equal(local(value), local(own[name])), name
        return {name: local(value).numel() for name, value in own.items()}


def test_tensors_of_every_kind_and_pieces_of_no_rows(workers: Workers, tmp_path: Path) -> None:
    sizes = workers.run(4, strange, tmp_path / "all")
    assert sizes[3]["few rows"] == 0
    for name, value in consolidate(tmp_path / "all").items():
        assert torch.equal(value, STRANGE[name]), name
        assert value.dtype == STRANGE[name].dtype


def contents(folder: Path) -> dict[str, Any]:
    """Of every file: the header and the pieces."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            pieces = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118 - no mapping
            offsets = json.loads(file.metadata()["DCP_SHARDING_INFO"])
            found[path.name] = (file.metadata() | {"DCP_SHARDING_INFO": ""}, offsets, pieces)
    return found


def under_both_writers(folder: Path) -> None:
    with joined(ParallelPlan.parse("dp=2,zero=3")) as world:
        assert world.mesh is not None
        mesh = world.mesh["shard"]
        own = {
            name: distribute_tensor(STRANGE[name], mesh, [Shard(0)], src_data_rank=None) for name in ("odd", "few rows")
        }
        own["number"] = STRANGE["number"]
        save(folder / "ours", own, {}, world)
        dcp.save(dict(own), storage_writer=dcp.HuggingFaceStorageWriter(str(folder / "theirs"), save_distributed=True))
        world.wait()
        found = {name: torch.zeros_like(value) for name, value in own.items()}
        dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(folder / "ours")))
        for name, value in found.items():
            assert torch.equal(local(value), local(own[name])), name


def test_the_files_are_those_of_the_library(workers: Workers, tmp_path: Path) -> None:
    workers.run(2, under_both_writers, tmp_path)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")
    files = {path.name: path.stat().st_size for path in (tmp_path / "theirs").iterdir()}
    (tmp_path / "theirs" / ABOUT).write_text(json.dumps({"about": {}, "files": files}))
    assert torch.equal(consolidate(tmp_path / "theirs")["odd"], STRANGE["odd"])


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, flag = tmp_path / "all", tmp_path / "flag"
    save(folder, STRANGE, {"step": 1}, ALONE)

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    for name in (".metadata", "__0_0.distcp", "trap.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap()))

    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a pickle")

    monkeypatch.setattr(torch, "load", refused)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refused)
    assert torch.equal(consolidate(folder)["odd"], STRANGE["odd"])
    assert not flag.exists()


def changed_meanwhile(folder: Path) -> None:
    """The same tensors saved at once and in the background, while a step changes them."""
    with joined(ParallelPlan.parse("dp=2,zero=3")) as world:
        assert world.mesh is not None
        own: dict[str, Tensor] = {"plain": torch.randn(300, 300), "number": torch.tensor(2.0)}
        own["divided"] = distribute_tensor(torch.randn(999, 300), world.mesh["shard"], [Shard(0)])
        save(folder / "at once", own, {"step": 1}, world)
        saving = Saving(folder / "meanwhile", own, {"step": 1}, world)
        for value in own.values():
            value.add_(1)
        world.wait()
        assert not (folder / "meanwhile").exists(), "there before all agreed that it is"
        saving.finish()
        assert not saving.is_writing
        world.wait()
        assert (folder / "meanwhile").exists()


def test_what_is_saved_in_the_background_is_what_was_there_at_its_beginning(workers: Workers, tmp_path: Path) -> None:
    workers.run(2, changed_meanwhile, tmp_path)
    assert len(contents(tmp_path / "at once")) == 2
    assert contents(tmp_path / "at once") == contents(tmp_path / "meanwhile")


def killed(folder: Path, rank: int) -> None:
    """One process is ended without a word when its file is partly written."""
    with joined(ParallelPlan.parse("dp=2")) as world:
        save(folder / "step-1", {"weight": torch.ones(3)}, {"step": 1}, world)
        saving = Saving(folder / "step-2", {str(number): torch.ones(2**22) for number in range(16)}, {"step": 2}, world)
        while world.rank == rank:
            if any(path.stat().st_size for path in (folder / ".step-2").glob(".shard-0000*.part.safetensors")):
                os.kill(os.getpid(), signal.SIGKILL)
        saving.finish()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_while_it_saves_leaves_the_last_good_one(workers: Workers, tmp_path: Path, rank: int) -> None:
    with pytest.raises(CaseError):
        workers.run(2, killed, tmp_path, rank)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".step-2", "step-1"]
    assert torch.equal(consolidate(tmp_path / "step-1")["weight"], torch.ones(3))
    with pytest.raises(ModelError, match=r"no checkpoint of this version \(no checkpoint.json\)"):
        consolidate(tmp_path / ".step-2")
    save(tmp_path / "step-2", {"weight": torch.ones(3)}, {}, ALONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]


def full(folder: Path) -> str:
    """One of two disks takes no more."""
    with joined(ParallelPlan.parse("dp=2")) as world:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        own = {f"{world.rank}": torch.ones(10_000)}
        try:
            if world.rank == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            save(folder / "step-1", own, {}, world)
        except DataError as error:
            return str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        raise AssertionError("it was written all the same")


def test_a_full_disk_of_one_process_is_an_error_of_all(workers: Workers, tmp_path: Path) -> None:
    said = ranks(workers.run(2, full, tmp_path))
    assert "shard-00002" in said
    assert "cannot be written: File too large" in said
    assert not (tmp_path / "step-1").exists()


def refusals(folders: list[Path], own: dict[str, Tensor]) -> list[str]:
    """What each of two processes hears."""
    found = []
    with joined(ParallelPlan.parse("dp=2")) as world:
        for folder in folders:
            try:
                # The second process asks for one of the tensors alone.
                load(folder, own if world.rank == 0 else dict(list(own.items())[-1:]), world)
            except ModelError as error:  # noqa: PERF203
                found.append(str(error))
    return found


def test_what_is_broken_or_of_another_model_is_refused_with_one_line_by_all(workers: Workers, tmp_path: Path) -> None:
    wanted = {"bias": torch.zeros(4), "scale": torch.zeros(()), "weight": torch.zeros(4, 4)}
    said: dict[str, str] = {}

    def saved(name: str, tensors: Mapping[str, Tensor], reason: str) -> Path:
        said[name] = reason
        save(tmp_path / name, tensors, {}, ALONE)
        return tmp_path / name

    saved("less", {"weight": wanted["weight"]}, "less does not fit this recipe (lacks bias)")
    saved("more", wanted | {"adapter": wanted["bias"]}, "more does not fit this recipe (has adapter)")
    saved("wide", wanted | {"weight": torch.zeros(4, 5)}, "(weight is (4, 5) in torch.float32, not (4, 4)")
    saved(
        "half", wanted | {"bias": torch.zeros(4).half()}, "(bias is (4,) in torch.float16, not (4,) in torch.float32)"
    )
    (file,) = saved("short", wanted, "safetensors is missing or cut off").glob("*.safetensors")
    os.truncate(file, file.stat().st_size - 1)
    (file,) = saved("gone", wanted, "safetensors is missing or cut off").glob("*.safetensors")
    file.unlink()
    shutil.copy(file.with_name(ABOUT), saved("more files", wanted, "is missing or cut off") / "more.safetensors")
    (file,) = saved("overwritten", wanted, "no checkpoint of this version").glob("*.safetensors")
    file.write_bytes(b"\xff" * file.stat().st_size)
    saved("unnamed", wanted, "unnamed is no checkpoint of this version (no checkpoint.json)")
    (tmp_path / "unnamed" / ABOUT).unlink()
    (saved("listless", wanted, "is no checkpoint of this version (no 'files')") / ABOUT).write_text('{"about": {}}')
    said["absent"] = "checkpoint.json cannot be read (No such file or directory): needs a whole checkpoint"

    first, second = workers.run(2, refusals, [tmp_path / name for name in said], wanted)
    assert first == second
    for line, reason in zip(first, said.values(), strict=True):
        assert reason in line


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    assert capsys.readouterr().out == "{'model.head.weight': (2, 3)}\n"


class Interrupted(Silence):
    """Ctrl-C comes after a step."""

    def __init__(self, step: int) -> None:
        self.last = step

    def stepped(self, *, step: int, loss: float, tokens_per_second: float) -> None:
        if step == self.last:
            signal.raise_signal(signal.SIGINT)


def sitting(plan: str, folder: Path, until: int, seconds: float) -> None:
    """Some steps of a run, under one plan."""
    rows = [row for step in range(3) for row in rows_of(step, rows=16)]
    config = TrainConfig(epochs=2, batch_size=8, learning_rate=1e-3, seed=3, checkpoint_seconds=seconds)
    with joined(ParallelPlan.parse(plan)) as world:
        model = model_of("decoder")
        headed = HeadedModel(model, TokenTask().head(model))
        options: dict[str, Any] = {"config": config, "dtype": torch.float32, "folder": folder, "world": world}
        try:
            train(headed, TokenTask(), rows, rows[:4], progress=Interrupted(until), **options)
        except KeyboardInterrupt:
            assert until


class Signalled(TokenTask):
    """Ctrl-C comes to the first process, while it is about to look at the development rows."""

    def predict(self, model: HeadedModel, rows: Any) -> list[int]:
        if os.environ["RANK"] == "0":
            signal.raise_signal(signal.SIGINT)
        return super().predict(model, rows)


def interrupted_while_evaluated(plan: str, folder: Path) -> bool:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with joined(ParallelPlan.parse(plan), seconds=30.0) as world:
            model = model_of("decoder")
            headed = HeadedModel(model, Signalled().head(model))
            config = TrainConfig(epochs=3, batch_size=8)
            options: dict[str, Any] = {"config": config, "dtype": torch.float32, "folder": folder, "world": world}
            try:
                train(headed, Signalled(), rows_of(0), rows_of(1, rows=4), **options)
            except KeyboardInterrupt:
                return True
            return False
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("plan", ["dp=2", "dp=2,zero=3", "tp=2", "pp=2"])
def test_ctrl_c_in_an_evaluation_lets_all_end_it_and_keeps_it(workers: Workers, tmp_path: Path, plan: str) -> None:
    assert workers.run(2, interrupted_while_evaluated, plan, tmp_path) == [True, True]
    # They end the evaluation behind the first step, and stop after the next one.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 1


@pytest.mark.parametrize("seconds", [1e-6, 100.0])
def test_a_run_goes_on_under_other_plans_to_the_same_losses(workers: Workers, tmp_path: Path, seconds: float) -> None:
    sitting("dp=1", tmp_path / "alone", 0, 100.0)
    sittings = (("dp=2,zero=1", 3), ("dp=2,pp=2,zero=3", 5), ("dp=1", 7), ("dp=2,tp=2,zero=3", 9), ("pp=2", 0))
    for plan, until in sittings:
        workers.run(ParallelPlan.parse(plan).world, sitting, plan, tmp_path / "moved", until, seconds)
    curves = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("alone", "moved")
    ]
    assert len(curves[0]) == 12
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
