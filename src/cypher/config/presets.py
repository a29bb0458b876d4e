"""Adapters by the names that the field knows them by."""

from __future__ import annotations

from typing import Any

_SEQUENTIAL: dict[str, Any] = {"method": "bottleneck", "reads": "normed"}
_DOUBLE: dict[str, Any] = {"method": "bottleneck", "places": ("attention", "feedforward"), "activation": "silu"}
_PARALLEL: dict[str, Any] = {
    "method": "bottleneck", "reads": "residual", "reduction_factor": 2.0, "init": "mam_adapter", "scale": 4.0,
}  # fmt: skip
_QUERY_VALUE: dict[str, Any] = {"rank": 8, "alpha": 8.0, "targets": ("query", "value")}

PRESETS: dict[str, dict[str, Any]] = {
    "seq_bn": _SEQUENTIAL,
    "double_seq_bn": _DOUBLE,
    "par_bn": _PARALLEL,
    "scaled_par_bn": {**_PARALLEL, "scale": "learned"},
    "seq_bn_inv": {"method": "union", "parts": (_SEQUENTIAL, {"method": "invertible"})},
    "double_seq_bn_inv": {"method": "union", "parts": (_DOUBLE, {"method": "invertible", "activation": "silu"})},
    "compacter": {"method": "compacter", "places": ("attention", "feedforward")},
    "compacter++": {"method": "compacter", "reads": "normed"},
    "prefix_tuning": {"method": "prefix"},
    "prefix_tuning_flat": {"method": "prefix", "flat": True},
    "prompt_tuning": {"method": "prompt"},
    "lora": {"method": "lora", **_QUERY_VALUE},
    "ia3": {"method": "ia3"},
    "vera": {"method": "vera", "rank": 8},
    "dora": {"method": "dora", **_QUERY_VALUE},
    "dvora": {"method": "dvora", "rank": 8},
    "loreft": {"method": "reft"},
    "noreft": {"method": "reft", "orthogonal": False},
    "direft": {"method": "reft", "orthogonal": False, "subtract_projection": False},
    "mam": {"method": "union", "parts": ({"method": "prefix", "bottleneck": 800}, _PARALLEL)},
    "unipelt": {
        "method": "union",
        "parts": (
            {"method": "prefix", "length": 10, "gated": True},
            {**_SEQUENTIAL, "gated": True},
            {"method": "lora", **_QUERY_VALUE, "gated": True},
        ),
    },
}
"""Each preset's method and what it sets otherwise than the method itself."""

OLD_NAMES = {
    "pfeiffer": "seq_bn",
    "houlsby": "double_seq_bn",
    "parallel": "par_bn",
    "scaled_parallel": "scaled_par_bn",
    "pfeiffer+inv": "seq_bn_inv",
    "houlsby+inv": "double_seq_bn_inv",
}
"""What some of them were called before."""
