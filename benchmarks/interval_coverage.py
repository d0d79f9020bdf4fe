"""How often the printed interval of a study's choice holds the truth, simulated.

    python benchmarks/interval_coverage.py --fronts 20000

Every point of a front is as fast as the others and as accurate, so that luck alone decides which is
chosen: the hardest case. A pair's ratio has 5 % of noise. `as chosen` is the interval by which the
choice was made, `fresh` the one that is printed: of the chosen point, timed once more. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from foredraft.judge.timing import Ratio, ratio
from foredraft.search.choice import Candidate, favourite

TRUTH, NOISE, PAIRS = 1.30, 0.05, 20
POINTS = (1, 8, 16)


def timed(random: np.random.Generator) -> Ratio:
    """One point, timed in pairs."""
    ratios = TRUTH * np.exp(NOISE * random.standard_normal(PAIRS))
    return ratio(ratios.tolist(), [1.0] * PAIRS)


def chosen(points: int, random: np.random.Generator) -> Ratio:
    """The measurement of the point that a study of so many would choose."""
    measured = [timed(random) for _ in range(points)]
    index = favourite([Candidate(*one[:3], mse_ratio=1.0) for one in measured])
    assert index is not None
    return measured[index]


def holds(one: Ratio) -> bool:
    """Whether the interval encloses the truth."""
    return one.low is not None and one.high is not None and one.low <= TRUTH <= one.high


def main() -> None:
    """Print a table, and its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fronts", type=int, default=20_000)
    fronts = parser.parse_args().fronts
    random = np.random.default_rng(0)
    rows = []
    print("| points | as chosen | told | fresh | told |\n| --- | --- | --- | --- | --- |")
    for points in POINTS:
        # A fresh timing knows nothing of the first: it is one more draw.
        before = [chosen(points, random) for _ in range(fronts)]
        fresh = [timed(random) for _ in range(fronts)]
        row = {"points": points}
        for name, found in (("as_chosen", before), ("fresh", fresh)):
            row[name] = float(np.mean([holds(one) for one in found]))
            row[f"{name}_told"] = float(np.mean([one.median for one in found]))
        rows.append(row)
        print(
            f"| {points} | {row['as_chosen']:.1%} | {row['as_chosen_told']:.3f}x "
            f"| {row['fresh']:.1%} | {row['fresh_told']:.3f}x |"
        )
    about = {"truth": TRUTH, "noise": NOISE, "pairs": PAIRS, "fronts": fronts}
    print(json.dumps({**about, "rows": rows}))


if __name__ == "__main__":
    main()
