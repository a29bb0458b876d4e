"""The only renderer of spans, the only figure style, the only self-contained page."""

from cypher.report.latency_tradeoff import TradePoint, pareto_front, tradeoff
from cypher.report.markup import escaped
from cypher.report.page import page
from cypher.report.plan_bars import PlanBar, plan_bars
from cypher.report.spans import render_spans
from cypher.report.training_curves import curves

__all__ = [
    "PlanBar",
    "TradePoint",
    "curves",
    "escaped",
    "page",
    "pareto_front",
    "plan_bars",
    "render_spans",
    "tradeoff",
]
