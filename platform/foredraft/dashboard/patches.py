"""What changed between two figures, so that a page is sent that and no more.

Zoom and hidden traces are the reader's: a figure keeps its one `uirevision`, and what stays the
same is not touched.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dash import Patch

KEPT = 64
"""Figures of which is known what a page was sent; of any older one the page is sent all anew."""
UIREVISION = "foredraft"

Change = tuple[tuple[str | int, ...], Any]
"""Where in a figure something else stands now, and what."""


class Sent(NamedTuple):
    """A figure, or what changed in it, and the name under which the page knows it."""

    content: Any
    name: str


class Figures:
    """The figures that pages were sent, by their names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def send(self, figure: dict[str, Any], *, name: str, shown: str | None) -> Sent | None:
        """What a page that shows the figure `shown` has to be sent to show this one.

        None where that is nothing. The whole figure where `shown` is not known any more, or has
        other traces.
        """
        if name == shown:
            return None
        with self._lock:
            before = self._known.get(shown or "")
            self._known[name] = figure
            self._known.move_to_end(name)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        found = changes(before, figure) if before is not None else None
        if found is None:
            return Sent(figure, name)
        patch = Patch()
        for path, value in found:
            place = patch
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
        return Sent(patch, name)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change] | None:
    """What has to be set in `before` to make it `after`; None where other traces are drawn."""
    if [_kind(trace) for trace in before["data"]] != [_kind(trace) for trace in after["data"]]:
        return None
    found: list[Change] = []
    if not _differences(before, after, (), found):
        return None
    return found


def _kind(trace: Mapping[str, Any]) -> tuple[Any, ...]:
    return trace.get("type"), trace.get("name"), trace.get("mode"), trace.get("legendgroup")


def _differences(before: Any, after: Any, path: tuple[str | int, ...], found: list[Change]) -> bool:
    """Whether the differences could be said as keys to set: a key that has gone could not."""
    if before == after:
        return True
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.keys() - after.keys():
            return False
        return all(_differences(before.get(k), after[k], (*path, k), found) for k in after)
    if path in (("data",), ("layout", "annotations"), ("layout", "shapes")) and _alike(
        before, after
    ):
        pairs = enumerate(zip(before, after, strict=True))
        return all(_differences(old, new, (*path, place), found) for place, (old, new) in pairs)
    found.append((path, after))
    return True


def _alike(before: Any, after: Any) -> bool:
    return (
        isinstance(before, Sequence) and isinstance(after, Sequence) and len(before) == len(after)
    )
