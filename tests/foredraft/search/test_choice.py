"""Claims about which measured point is recommended.

- Of points whose intervals overlap the fastest's, the most accurate; of equals the faster.
- What gains nothing over the target alone is no rival of what does.
- Without intervals only points of the very same speed are as fast.
"""

from __future__ import annotations

from foredraft.search.choice import Candidate, favourite, is_faster


def test_accuracy_decides_among_those_that_overlap_the_fastest_and_only_there() -> None:
    fastest = Candidate(2.0, 1.9, 2.1, ratio=1.009)
    touching = Candidate(1.85, 1.8, 1.9, ratio=1.001)
    apart = Candidate(1.8, 1.7, 1.89, ratio=0.9)
    assert favourite([apart, fastest, touching]) == 2
    assert favourite([apart, fastest]) == 1
    assert favourite([apart]) == 0
    assert favourite([]) is None


def test_of_equally_accurate_points_the_faster_is_chosen() -> None:
    slow, fast = (Candidate(x, x - 0.1, x + 0.1, ratio=1.0) for x in (1.5, 1.55))
    assert favourite([slow, fast]) == favourite([fast, slow, slow]) + 1 == 1


def test_a_point_that_gains_nothing_is_no_rival_of_one_that_does() -> None:
    gains = Candidate(1.1, 1.02, 1.18, ratio=1.009)
    gains_nothing = Candidate(1.01, 0.97, 1.05, ratio=1.0)
    assert favourite([gains, gains_nothing]) == 0
    assert favourite([gains._replace(low=0.99), gains_nothing]) == 1


def test_a_gain_is_established_by_the_low_end_and_without_one_by_the_speedup() -> None:
    assert is_faster(1.1, 1.01)
    assert not is_faster(1.1, 1.0)
    assert is_faster(1.01, None)
    assert not is_faster(1.0, None)


def test_without_intervals_the_fastest_is_chosen() -> None:
    slow, fast = Candidate(1.99, None, None, 0.9), Candidate(2.0, None, None, 1.0)
    assert favourite([slow, fast]) == 1
    assert favourite([slow._replace(speedup=2.0), fast]) == 0
