"""Timer in pure PyTorch: a univariate decoder over patches, and THUML's public checkpoint of it."""

from timer.config import TimerConfig
from timer.family import VERSION
from timer.model import Timer

__all__ = [
    "VERSION",
    "Timer",
    "TimerConfig",
]
