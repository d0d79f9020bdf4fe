"""Timer-XL among the families of models."""

from __future__ import annotations

from speculation.families import Family, register
from timer_xl.config import TimerXLConfig
from timer_xl.model import TimerXL

VERSION = 1
"""Of the family's arithmetic: raise it when the same weights would give another forecast, or the
same seed other weights. What was made before is then made anew."""

FAMILY = register(
    Family(
        name=TimerXLConfig.family,
        version=VERSION,
        architecture=TimerXLConfig,
        network=TimerXL,
    )
)
