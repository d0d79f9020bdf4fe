"""Which of the draft's patches the target keeps: the rules, one a file, and their closed forms."""

from speculation.rules.acceptance import RULES, Acceptance, Verdict
from speculation.rules.gaussian import Gaussian
from speculation.rules.lossless import Lossless
from speculation.rules.tolerance import Tolerance
from speculation.rules.words import rule_from

__all__ = ["RULES", "Acceptance", "Gaussian", "Lossless", "Tolerance", "Verdict", "rule_from"]
