"""Speculative decoding over patches, for any family of models that forecasts patch by patch."""

from speculation import cost
from speculation.decode import Speculation, rollout, speculate
from speculation.errors import InvalidInput
from speculation.plan import Plan
from speculation.policy import ContextPolicy
from speculation.rules import Acceptance, acceptance_probability

__all__ = [
    "Acceptance",
    "ContextPolicy",
    "InvalidInput",
    "Plan",
    "Speculation",
    "acceptance_probability",
    "cost",
    "rollout",
    "speculate",
]
