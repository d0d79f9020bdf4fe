"""Claims about measurements that cannot be true.

- Pairs that disagree, a target off its calibration and a speedup off its prediction are each tried
  again, three times in all; the first that can be true is taken as it is.
- What never can be is the steadiest try, with the reason, its numbers and, of a busy machine, what
  to do.
- A prediction of a larger known error doubts less, and of another device than the calibrated one
  only the pairs are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from foredraft.judge.timing import Pairs
from foredraft.search.doubts import TRIES, ExpectedTiming, trusted, why_doubt
from foredraft.search.trial import Prediction, Trial
from foredraft.settings.config import Evaluation
from speculation import ContextPolicy, cost

MakeTrial = Callable[..., Trial]
EXPECTED = ExpectedTiming(target_s=1.0, speedup=1.5, error=0.25)


def timed(*ratios: float, target_s: float = 1.0) -> Pairs:
    """Pairs of these ratios."""
    return Pairs((target_s,) * len(ratios), tuple(target_s / ratio for ratio in ratios))


GOOD = timed(*(1.5 + 0.01 * n for n in range(-4, 5)))
ABSURD = timed(8.3, 12.5, 16.8)  # as it was measured beside other load
OTHERS_LOAD = timed(*[1.5] * 9, target_s=2.1)
TOO_FAST = timed(*[1.9] * 9)
TOO_SLOW = timed(*[1.19] * 9)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (ABSURD, ("3 pairs", "68 %", "over 50 %")),
        (OTHERS_LOAD, ("2.1 s", "1 s", "over 2 times apart", "--resume times it anew")),
        (timed(*[1.5] * 9, target_s=0.49), ("0.49 s", "over 2 times", "foredraft reprice")),
        (TOO_FAST, ("1.90×", "1.50×", "25 %")),
        (TOO_SLOW, ("1.19×", "1.50×", "25 %")),
    ],
)
def test_what_cannot_be_true_is_tried_three_times_and_then_doubted_with_its_numbers(
    odd: Pairs, words: tuple[str, ...]
) -> None:
    tries: list[Pairs] = []

    def measure() -> Pairs:
        tries.append(odd)
        return odd

    found = trusted(measure, expected=EXPECTED)
    assert len(tries) == TRIES == 3
    assert found.speedup == pytest.approx(odd.timing.speedup)
    assert found.doubt
    assert all(word in found.doubt for word in words)
    assert "\n" not in found.doubt


def test_the_first_try_that_can_be_true_is_taken_without_a_doubt() -> None:
    tries: Iterator[Pairs] = iter([ABSURD, GOOD, TOO_FAST])
    found = trusted(lambda: next(tries), expected=EXPECTED)
    assert (found.speedup, found.doubt) == (GOOD.timing.speedup, None)
    assert next(tries) is TOO_FAST


def test_of_tries_that_are_all_odd_the_steadiest_is_kept() -> None:
    tries = iter([ABSURD, TOO_SLOW, ABSURD])
    found = trusted(lambda: next(tries), expected=EXPECTED)
    assert found.doubt
    assert found.speedup == pytest.approx(1.19)


def test_a_few_pairs_far_apart_are_made_more_until_they_tell_what_they_agree_on() -> None:
    # Of seven pairs the interval is the whole range; of fourteen it leaves two at either end.
    noisy = timed(1.1, 1.4, 1.45, 1.5, 1.55, 1.6, 2.2)
    assert why_doubt(noisy.timing, expected=EXPECTED)
    tries: list[Pairs] = []

    def measure() -> Pairs:
        tries.append(noisy)
        return noisy

    found = trusted(measure, expected=EXPECTED)
    assert (len(tries), found.pairs, found.doubt) == (2, 14, None)
    assert found.speedup == pytest.approx(1.5)
    assert found.speedup_low == pytest.approx(1.4)
    assert found.speedup_high == pytest.approx(1.6)


def test_ordinary_noise_is_no_doubt_and_neither_is_a_few_odd_pairs() -> None:
    noise = timed(*(1.5 * (1 + 0.02 * n) for n in range(-10, 10)))
    assert why_doubt(noise.timing, expected=EXPECTED) is None
    assert why_doubt(timed(*[1.5] * 15, *[9.0] * 5).timing, expected=EXPECTED) is None
    assert why_doubt(timed(*[1.86] * 9, target_s=1.9).timing, expected=EXPECTED) is None


def test_a_prediction_is_granted_its_known_error_and_25_per_cent_at_least(
    make_trial: MakeTrial,
) -> None:
    outcome = make_trial(predicted_speedup=1.5).outcome
    assert outcome
    evaluation = Evaluation(data="-", horizon=90, policy=ContextPolicy("cached", renorm_every=3))

    def expected(error: float | None) -> ExpectedTiming:
        known = Prediction(acceptance_rate=0.5, speedup=1.5, speedup_error=error)
        told = outcome.model_copy(update={"prediction": known})
        return ExpectedTiming.of(told, evaluation=evaluation, patch=8)

    assert [expected(error).error for error in (None, 0.1, 0.4)] == [0.25, 0.25, 0.4]
    seconds = cost.target_seconds(outcome.costs, patches=12, renorm_every=3, batch=1)
    assert expected(None).target_s == seconds
    wide = timed(*[1.9] * 9, target_s=seconds).timing
    assert why_doubt(wide, expected=expected(0.1))
    assert why_doubt(wide, expected=expected(0.4)) is None


def test_on_a_kind_of_device_that_was_not_calibrated_the_pairs_alone_are_judged() -> None:
    assert why_doubt(TOO_FAST.timing, expected=None) is None
    assert why_doubt(OTHERS_LOAD.timing, expected=None) is None
    assert why_doubt(ABSURD.timing, expected=None)
