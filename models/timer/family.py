"""Timer among the families of models."""

from __future__ import annotations

from speculation.families import Family, register
from timer.config import TimerConfig
from timer.model import Timer

VERSION = 1
"""Of the family's arithmetic: raise it when the same weights would give another forecast, or the
same seed other weights. What was made before is then made anew."""

FAMILY = register(
    Family(
        name=TimerConfig.family,
        version=VERSION,
        architecture=TimerConfig,
        network=Timer,
    )
)
