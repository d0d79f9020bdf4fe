"""Whether a measurement can be true; one that cannot is tried again, and then flagged.

    expected = ExpectedTiming.of(outcome, evaluation=evaluation, patch=96)
    measured = trusted(measure, expected=expected)
    measured.doubt  # None, or why it is not believed

Beside other load a point that was predicted at 0.86x was once measured at 12.5x, and chosen. Three
things give such a measurement away: its pairs disagree, the target alone took other seconds than
its passes did when they were calibrated, or the speedup is not what these passes add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from foredraft.judge.calibrations import APART, apart
from foredraft.judge.timing import Pairs, Timing
from foredraft.search.trial import Measured, Outcome
from foredraft.settings.config import Evaluation
from speculation import cost

TRIES = 3
"""How often a measurement is made at most, until one can be true."""
SPREAD = 0.5
"""Widest interval of the pairs' ratios, as a share of their median: +-25 %. Of twenty pairs that is
about the distance between their quartiles, which five or ten odd ones do not move; 5 % of noise a
pair makes 0.07, and 20 % still only 0.27."""
LEAST_ERROR = 0.25
"""Error that a prediction is granted at least, as a factor to either side: on forecasts of some
milliseconds the cost model is off by up to 15 %, and a pair's noise comes on top."""

# Load makes a pass slower and nothing makes it faster: the slower of two seconds is the odd one.
BUSY_NOW = (
    "something else kept the machine busy when it was timed; on an idle one --resume times it anew"
)
BUSY_THEN = (
    "something else kept the machine busy when it was calibrated; foredraft reprice calibrates "
    "it anew and chooses by that"
)


class ExpectedTiming(NamedTuple):
    """What was known of a point before it was measured, on the same kind of device."""

    target_s: float
    """of the target alone, as its calibrated passes add up"""
    speedup: float
    error: float
    """of the speedup, as a fraction of it"""

    @classmethod
    def of(cls, outcome: Outcome, *, evaluation: Evaluation, patch: int) -> ExpectedTiming:
        """What a trial's calibration and prediction tell, for patches of so many steps."""
        known = outcome.prediction.speedup_error if outcome.prediction else None
        return cls(
            target_s=cost.target_seconds(
                outcome.costs,
                patches=-(-evaluation.horizon // patch),
                renorm_every=evaluation.policy.renorm_every,
                batch=evaluation.batch,
            ),
            speedup=outcome.metrics.predicted_speedup,
            error=max(LEAST_ERROR, known or 0.0),
        )


def trusted(measure: Callable[[], Pairs], *, expected: ExpectedTiming | None) -> Measured:
    """The first of up to `TRIES` measurements that can be true, else the steadiest, with its doubt.

    One that cannot be true by itself may be together with those before it: on a machine that is
    never quiet a few pairs lie far apart, and what they agree on is told by more of them.

    Args:
        measure: takes one.
        expected: None where another kind of device was calibrated: then its pairs alone are judged.
    """
    tried: list[Timing] = []
    together = Pairs((), ())
    for _ in range(TRIES):
        latest = measure()
        together = together.and_also(latest)
        for pairs in (latest, together):
            tried.append(pairs.timing)
            if why_doubt(tried[-1], expected=expected) is None:
                return Measured.of(tried[-1])
    steadiest = min(tried, key=lambda timing: timing.speedup_spread)
    doubt = f"in the steadiest of {TRIES} tries {why_doubt(steadiest, expected=expected)}"
    return Measured.of(steadiest).model_copy(update={"doubt": doubt})


def why_doubt(timing: Timing, *, expected: ExpectedTiming | None) -> str | None:
    """Why a measurement cannot be true, in words with its numbers; None where it can."""
    if timing.speedup_spread > SPREAD:
        return (
            f"its {timing.pairs} pairs are {_percent(timing.speedup_spread)} of their median "
            f"apart, over {_percent(SPREAD)}"
        )
    if expected is None:
        return None
    if apart(timing.target_s, expected.target_s) > APART:
        busy = BUSY_NOW if timing.target_s > expected.target_s else BUSY_THEN
        return (
            f"the target alone took {timing.target_s:.3g} s, and by its calibration takes "
            f"{expected.target_s:.3g} s, over {APART:g} times apart: {busy}"
        )
    if apart(timing.speedup, expected.speedup) > 1 + expected.error:
        return (
            f"{timing.speedup:.2f}× was measured and {expected.speedup:.2f}× predicted, which is "
            f"within {_percent(expected.error)} elsewhere"
        )
    return None


def _percent(fraction: float) -> str:
    """A fraction as the report writes it, without digits that nobody needs here."""
    return f"{fraction * 100:.0f} %"
