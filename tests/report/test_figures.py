"""Figures: what is drawn, where labels stand, and what is refused."""

from __future__ import annotations

import math
import random
import re
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from cypher.errors import ConfigError, DataError
from cypher.report import PlanBar, TradePoint, curves, pareto_front, plan_bars, tradeoff
from cypher.report.label_places import Box, place_labels, spread

ROWS = [{"step": step, "loss": 2 / step} for step in range(1, 101)] + [
    {"step": 50, "f1": 0.5},
    {"step": 100, "f1": 0.75},
]


def point(name: str, latency: float, quality: float) -> TradePoint:
    return TradePoint(name=name, latency=latency, quality=quality)


POINTS = [point("fast", 1, 50), point("both", 5, 70), point("slow", 9, 60), point("best", 40, 80)]


def texts(svg: Path) -> list[str]:
    """Every text of a figure; matplotlib writes each one as a comment above its outlines."""
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", svg.read_text())]


def test_curves_as_png_and_svg(tmp_path: Path) -> None:
    png = curves(ROWS, tmp_path / "a.png", metrics=("f1",))
    content = png.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG")
    assert width == 1008
    assert height > 800
    svg = curves(ROWS, tmp_path / "a.svg", metrics=("f1",), title="Run $a_b$")
    assert {"Run $a_b$", "step", "loss", "f1", "f1 best 0.75"} <= {" ".join(t.split()) for t in texts(svg)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        first, second = (curves(ROWS, tmp_path / f"{n}.{suffix}").read_bytes() for n in "ab")
        assert first == second


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1, "loss": 1.0}],
        [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}],
        [{"step": n, "loss": math.inf if n % 3 else 1.0} for n in range(90)],
        [{"step": 2, "loss": 1}, {"step": 1, "loss": 2}, {"step": None, "loss": 2}, {"loss": "x"}, {}],
        [{"step": 1, "loss": 1e-30}, {"step": 10**9, "loss": 1e30}],
    ],
)
def test_odd_rows_are_drawn(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    assert curves(rows, tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("rows", [[], [{}], [{"step": 1}], [{"step": 1, "loss": math.nan}], [{"loss": 1.0}]])
def test_nothing_to_draw_is_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    with pytest.raises(DataError, match=r"no curve for a\.png: \d rows: needs step with one of loss"):
        curves(rows, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_tradeoff_names_every_point_and_the_recommended_one(tmp_path: Path) -> None:
    svg = tradeoff(POINTS, tmp_path / "a.svg", latency_label="ms", quality_label="F1", recommended="both", title="T")
    wanted = {"fast", "both (recommended)", "slow", "best", "T", "ms, lower is better", "F1, higher is better"}
    assert wanted <= set(texts(svg))


@pytest.mark.parametrize("points", [POINTS[:1], POINTS[:2], [POINTS[0], POINTS[0]]])
def test_tradeoff_of_few_points(tmp_path: Path, points: list[TradePoint]) -> None:
    assert tradeoff(points, tmp_path / "a.png", latency_label="s", quality_label="F1").exists()


def test_tradeoff_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for points, line in [([], "no points"), ([point("x", 0, 1)], "above 0"), ([point("x", 1, math.nan)], "finite")]:
        with pytest.raises(DataError, match=line):
            tradeoff(points, path, latency_label="ms", quality_label="F1")
    with pytest.raises(ConfigError, match="recommended = none: needs one of fast, both, slow, best"):
        tradeoff(POINTS, path, latency_label="ms", quality_label="F1", recommended="none")
    with pytest.raises(ConfigError, match=r"needs one of \.png \.svg"):
        tradeoff(POINTS, tmp_path / "a.pdf", latency_label="ms", quality_label="F1")


def test_pareto_front_against_its_definition() -> None:
    generator = random.Random(2)
    for _ in range(200):
        points = [
            point(str(n), generator.randint(1, 6), generator.randint(1, 6)) for n in range(generator.randint(0, 9))
        ]
        unbeaten = {
            p.name
            for p in points
            if not any(
                o.latency <= p.latency and o.quality >= p.quality and (o.latency, o.quality) != (p.latency, p.quality)
                for o in points
            )
        }
        front = pareto_front(points)
        assert {p.name for p in front} == unbeaten
        assert [p.latency for p in front] == sorted(p.latency for p in front)


def test_spread_keeps_order_and_gap() -> None:
    generator = random.Random(4)
    for _ in range(200):
        places = [generator.uniform(0, 50) for _ in range(generator.randint(0, 12))]
        moved = spread(places, 4.0)
        order = sorted(range(len(places)), key=lambda index: places[index])
        assert all(moved[b] - moved[a] > 4 - 1e-9 for a, b in pairwise(order))
        assert sum(moved) == pytest.approx(sum(places))
    assert spread([0.0, 100.0], 4.0) == [0.0, 100.0]


def test_labels_do_not_cover_each_other_or_leave_the_figure() -> None:
    bounds = Box(0, 0, 600, 400)
    points = [(300.0, 200.0), (310.0, 203.0), (590.0, 390.0), (5.0, 5.0), (300.0, 395.0)]
    boxes = place_labels(points, [(90.0, 14.0)] * 5, bounds, distance=8)
    for index, box in enumerate(boxes):
        assert box.overlap(bounds) == pytest.approx(box.area)
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :])


def test_matplotlib_is_loaded_only_to_draw_and_pyplot_never(tmp_path: Path) -> None:
    code = (
        "import sys, cypher.report, cypher.documents\n"
        "heavy = {'matplotlib', 'torch', 'pypdf', 'docx', 'selectolax', 'lxml', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"cypher.report.curves([{{'step': 1, 'loss': 1.0}}], {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_plans_are_bars_with_their_names_above(tmp_path: Path) -> None:
    bars = [
        PlanBar(name="dp=2,zero=3", kinds={"parameters": 4 * 10**9, "activations": 10**9}, note="1.2 s"),
        PlanBar(name="tp=2", kinds={"parameters": 5 * 10**9}),
    ]
    drawn = texts(plan_bars(bars, tmp_path / "a.svg", memory=8e9, title="T"))
    assert {"dp=2,zero=3", "tp=2", "1.2 s", "parameters", "activations", "T"} <= set(drawn)
    assert "gradients" not in drawn
    with pytest.raises(DataError, match=r"no plans for b\.svg"):
        plan_bars([], tmp_path / "b.svg", memory=8e9)
