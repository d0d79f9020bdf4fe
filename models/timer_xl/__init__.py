"""Timer-XL in pure PyTorch: the model, its scaled drafts, and what decodes them fast on a CPU."""

from timer_xl.config import TimerXLConfig
from timer_xl.engine import Engine
from timer_xl.family import VERSION
from timer_xl.model import TimerXL

__all__ = [
    "VERSION",
    "Engine",
    "TimerXL",
    "TimerXLConfig",
]
