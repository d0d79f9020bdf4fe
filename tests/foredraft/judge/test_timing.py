"""Claims about how seconds are measured; none about how many there are."""

import math
import statistics
import time

import pytest
import torch

from foredraft.judge import timing
from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Evaluation
from speculation import ContextPolicy
from timer_xl import Engine, TimerXL, TimerXLConfig

CPU = torch.device("cpu")
TINY = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)


def test_runs_take_turns_at_going_first_and_share_the_number_of_their_pair() -> None:
    calls: list[tuple[str, int]] = []
    runs = [lambda i, name=name: calls.append((name, i)) for name in "ab"]
    seconds = timing.interleaved(runs, pairs=3, device=CPU)
    warm_up, timed = calls[:-6], calls[-6:]
    assert warm_up[:2] == [("a", 0), ("b", 0)]
    assert timed == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert [len(one) for one in seconds] == [3, 3]


def test_short_runs_are_called_in_a_row_until_a_pair_lasts_each_with_its_own_number() -> None:
    calls: list[tuple[str, int]] = []

    def nap(name: str, index: int) -> None:
        calls.append((name, index))
        time.sleep(0.01)

    runs = [lambda i, name=name: nap(name, i) for name in "ab"]
    seconds = timing.interleaved(runs, pairs=2, device=CPU, pair_s=0.05)
    in_a_row = (max(index for _, index in calls) + 1) // 2
    assert 1 < in_a_row <= 3  # two naps of 10 ms at least
    first, second = range(in_a_row), range(in_a_row, 2 * in_a_row)
    turns = [("a", first), ("b", first), ("b", second), ("a", second)]
    assert calls[-4 * in_a_row :] == [(name, i) for name, row in turns for i in row]
    assert 0.01 <= min(one for run in seconds for one in run) < 0.02  # of one call


def test_what_takes_no_time_is_not_called_for_ever() -> None:
    calls: list[int] = []
    timing.interleaved([calls.append] * 2, pairs=1, device=CPU, pair_s=9.0)
    assert len(calls) == 2 + 2 * timing.MOST_IN_A_ROW


def test_a_bound_on_seconds_leaves_three_pairs_at_least() -> None:
    seconds = timing.interleaved([lambda _: None] * 2, pairs=50, device=CPU, at_most_s=0.0)
    assert len(seconds[0]) == 3


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that slows down in the middle changes neither the ratio nor its interval."""
    drift = [1.0] * 10 + [5.0] * 11
    found = timing.ratio([3.0 * d for d in drift], drift)
    assert found == pytest.approx((3.0, 3.0, 3.0, 0.0))


def test_fewer_than_six_pairs_have_no_interval_and_say_how_many_they_are() -> None:
    """The range of three pairs holds the true median in 75 of 100, and that of five in 93.75."""
    for count in range(1, timing.INTERVAL_PAIRS):
        assert timing.median_interval(count) is None
        found = timing.ratio([2.0] * count, [1.0] * count)
        assert found[:3] == (2.0, None, None)
    assert timing.in_words(2.0, None, None, pairs=5) == "2.00x (5 pairs)"
    assert timing.in_words(2.0, None, None, pairs=1) == "2.00x (1 pair)"
    assert timing.ratio([2.0] * 6, [1.0] * 6)[:3] == (2.0, 2.0, 2.0)
    assert timing.in_words(2.0, 1.9, 2.1, pairs=6) == "2.00x [1.90, 2.10]"


def test_the_spread_of_a_ratio_is_of_the_middle_pairs_or_of_all_where_they_are_few() -> None:
    assert timing.ratio([8.3, 12.5, 16.8], [1.0] * 3).spread == pytest.approx(8.5 / 12.5)
    few_odd = [1.0] * 16 + [9.0] * 4
    assert timing.ratio(few_odd, [1.0] * 20).spread == 0.0


@pytest.mark.parametrize("count", range(timing.INTERVAL_PAIRS, 60))
def test_the_interval_of_a_median_covers_it_in_95_of_100_and_is_no_wider_than_needed(
    count: int,
) -> None:
    ends = timing.median_interval(count)
    assert ends
    low, high = ends
    assert high == count - 1 - low

    def coverage(low: int) -> float:
        """How often `low` or fewer values lie on neither side of the true median."""
        return 1 - 2 * sum(math.comb(count, k) for k in range(low + 1)) / 2**count

    assert coverage(low) >= 0.95
    if low + 1 <= (count - 1) // 2:
        assert coverage(low + 1) < 0.95


@pytest.mark.parametrize("policy", [ContextPolicy(), ContextPolicy("cached", renorm_every=3)])
@pytest.mark.parametrize(("batch", "patches_out", "layers"), [(1, 1, 1), (5, 4, 2), (5, 1, 1)])
def test_a_calibration_times_every_pass_of_a_round(
    policy: ContextPolicy, batch: int, patches_out: int, layers: int
) -> None:
    torch.manual_seed(0)
    config = TimerXLConfig(**{**vars(TINY), "n_layers": layers})
    target = Engine(TimerXL(config))
    draft = Engine(TimerXL(config.scaled(0.5, patches_out=patches_out)))
    windows = EvaluationWindows(torch.randn(5, 32, 3), torch.randn(5, 64, 3))
    evaluation = Evaluation(data="-", horizon=64, batch=batch, policy=policy)
    costs = timing.calibrate(target, draft, windows, lookahead=4, evaluation=evaluation)
    assert costs.batches == ((1,) if batch == 1 else (1, 4, 5))
    assert costs.lookahead == 4
    for column in (costs.verify_s, costs.draft_s):
        assert [len(seconds) for seconds in column] == [5] * len(costs.batches)
    assert min(costs.step_s) > 0
    # Nothing is drafted in no time; a patch that rolls is one pass more.
    assert statistics.median(d[0] for d in costs.draft_s) < statistics.median(
        d[4] for d in costs.draft_s
    )


def test_of_a_processor_with_two_speeds_every_pass_gets_the_same_mixture() -> None:
    often_quick, often_slow = [1.0] * 21 + [2.0] * 19, [1.0] * 19 + [2.0] * 21
    assert timing.midmean(often_slow) / timing.midmean(often_quick) < 1.1
    assert timing.midmean([*often_quick, 1000.0]) < 1.6
    assert timing.midmean([3.0]) == 3.0
