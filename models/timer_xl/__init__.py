"""Timer-XL in pure PyTorch: the model, its scaled drafts, and speculative decoding over patches."""

from timer_xl.acceptance import Acceptance, acceptance_probability
from timer_xl.config import TimerXLConfig
from timer_xl.context import ContextPolicy
from timer_xl.decode import Speculation, rollout, speculate
from timer_xl.engine import Engine
from timer_xl.errors import InvalidInput
from timer_xl.model import Normalisation, TimerXL
from timer_xl.plan import Plan

VERSION = 1
"""Of the family's arithmetic: raise it when the same weights would give another forecast, or the
same seed other weights. What was made before is then made anew."""

__all__ = [
    "VERSION",
    "Acceptance",
    "ContextPolicy",
    "Engine",
    "InvalidInput",
    "Normalisation",
    "Plan",
    "Speculation",
    "TimerXL",
    "TimerXLConfig",
    "acceptance_probability",
    "rollout",
    "speculate",
]
