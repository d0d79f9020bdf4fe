"""What a page shows, as its address says it: studies, budgets, axis, tab, the trials looked at.

    view = View.of("?study=demo&mse_ratio=1.01&trial=demo:12")

A link shows a colleague the same thing; what an address says wrongly is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args
from urllib.parse import parse_qs, urlencode

from foredraft.settings.budgets import Budget

Tab = Literal["front", "why", "training", "cost"]
Axis = Literal["acceptance", "mse_ratio", "deviation_ratio"]


class Pick(NamedTuple):
    """A trial, by its study's label and its number."""

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study}:{self.number}"

    @classmethod
    def of(cls, text: str) -> Pick | None:
        """`demo:12`; None where that is no trial."""
        study, colon, number = text.rpartition(":")
        return cls(study, int(number)) if colon and number.isdecimal() else None


class View(NamedTuple):
    """One view of the dashboard."""

    studies: tuple[str, ...] = ()
    bounds: Mapping[str, float] = {}
    """instead of the studies' own budget, by the metric's name"""
    axis: Axis = "acceptance"
    tab: Tab = "front"
    trial: Pick | None = None
    pinned: Pick | None = None
    window: int = 0
    """of those that the trial keeps, from 0"""
    variate: int = 0
    """likewise"""

    @classmethod
    def of(cls, search: str | None) -> View:
        """The view of an address' part after the question mark."""
        asked = parse_qs((search or "").removeprefix("?"))
        axis, tab = _last(asked, "axis"), _last(asked, "tab")
        return cls(
            studies=tuple(dict.fromkeys(asked.get("study", ()))),
            bounds={
                name: bound
                for name in Budget.model_fields
                if (bound := _positive(_last(asked, name))) is not None
            },
            axis=axis if axis in get_args(Axis) else "acceptance",  # type: ignore[arg-type]
            tab=tab if tab in get_args(Tab) else "front",  # type: ignore[arg-type]
            trial=Pick.of(_last(asked, "trial")),
            pinned=Pick.of(_last(asked, "pinned")),
            window=_place(_last(asked, "window")),
            variate=_place(_last(asked, "variate")),
        )

    def budget(self, own: Budget) -> Budget:
        """The study's own budget, with the bounds that were moved."""
        return own.model_copy(update=dict(self.bounds)) if self.bounds else own


def address(studies: Sequence[str], **more: str) -> str:
    """The address of a view of these studies."""
    return "/?" + urlencode([*(("study", name) for name in studies), *more.items()])


def _last(asked: Mapping[str, Sequence[str]], name: str) -> str:
    values = asked.get(name, ())
    return values[-1] if values else ""


def _place(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
