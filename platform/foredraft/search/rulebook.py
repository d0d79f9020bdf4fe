"""The rules that a study may try, spread evenly over its dimensions.

rules = spread(study, emits_draft=False)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from foredraft.settings.dimensions import ChoiceDimension, Dimension, FloatDimension
from foredraft.settings.study import Study
from speculation import Acceptance

PROBES = 128
"""Rules by which it is told what rounds of a draft are likely at all."""
POINTS = 64 * PROBES
"""Points of the space that are looked at before fewer rules have to do."""


def spread(study: Study, *, emits_draft: bool, count: int = PROBES) -> list[Acceptance]:
    """Rules all over the study's space, of those that emit the draft's patches or of the others.

    The first has the longest lookahead that a trial may have. Some trial's rule has to be such.
    """
    found: list[Acceptance] = []
    for settings in _settings(study):
        rule = study.rule(settings)
        if rule.emits_draft == emits_draft and rule not in found:
            found.append(rule)
        if len(found) == count:
            break
    longest = dataclasses.replace(found[0], lookahead=study.longest_lookahead)
    return [longest, *found[1:]]


def emissions(study: Study) -> list[bool]:
    """Whether the study's rules emit the draft's patches: one answer or both, in order."""
    return sorted({study.rule(settings).emits_draft for settings in _settings(study)})


def _settings(study: Study) -> Iterator[dict[str, Any]]:
    """Settings at the points of a Sobol sequence, which leaves no part of the space out."""
    dimensions = study.dimensions
    engine = torch.quasirandom.SobolEngine(len(dimensions), scramble=True, seed=study.seed)
    for point in engine.draw(POINTS, dtype=torch.float64).tolist():
        yield at(dimensions, dict(zip(dimensions, point, strict=True)))


def at(
    dimensions: Mapping[str, Dimension],
    shares: Mapping[str, float],
    *,
    fixed: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Settings so far along each dimension, from 0 up to 1, of those that exist beside the others.

    What is fixed has its value.
    """
    settings: dict[str, Any] = {}
    for name, dimension in dimensions.items():
        if dimension.is_active(settings):
            settings[name] = fixed[name] if name in fixed else _value(dimension, shares[name])
    return settings


def _value(dimension: Dimension, share: float) -> Any:
    """The value so far along a dimension, from 0 up to 1."""
    if isinstance(dimension, ChoiceDimension) or dimension.values is not None:
        values = dimension.values
        assert values is not None
        return values[min(int(share * len(values)), len(values) - 1)]
    low, high = dimension.low, dimension.high
    value = low * (high / low) ** share if dimension.log else low + (high - low) * share
    return FloatDimension.rounded(min(max(value, low), high))
