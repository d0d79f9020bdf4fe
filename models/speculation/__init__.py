"""Speculative decoding over patches, for any family of models that forecasts patch by patch."""

from speculation import cost
from speculation.decode import Speculation, rollout, speculate
from speculation.errors import InvalidInput
from speculation.plan import Plan
from speculation.policy import ContextPolicy
from speculation.rules import Acceptance, Gaussian, Lossless, Tolerance, rule_from

__all__ = [
    "Acceptance",
    "ContextPolicy",
    "Gaussian",
    "InvalidInput",
    "Lossless",
    "Plan",
    "Speculation",
    "Tolerance",
    "cost",
    "rollout",
    "rule_from",
    "speculate",
]
