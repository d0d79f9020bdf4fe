"""Timer-XL in pure PyTorch: the model, its scaled drafts, and speculative decoding over patches."""

from timer_xl.config import TimerXLConfig
from timer_xl.engine import Engine
from timer_xl.model import Normalisation, TimerXL

VERSION = 1
"""Of the family's arithmetic: raise it when the same weights would give another forecast, or the
same seed other weights. What was made before is then made anew."""

__all__ = [
    "VERSION",
    "Engine",
    "Normalisation",
    "TimerXL",
    "TimerXLConfig",
]
