"""Every rule of a draft in a moment: thousands of settings, and what each is expected to come to.

    table = enumerate_rules(study, fixed, prepared, ...)

The rules of a study's space are spread over it evenly, then ever closer round those that are on the
front of what is expected. Nothing is decoded.

Shapes: Q rules, D objectives, each better the higher it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foredraft.judge import closed_form
from foredraft.judge.courses import Courses
from foredraft.search import rulebook
from foredraft.search.gain import not_beaten
from foredraft.settings.config import Evaluation
from foredraft.settings.dimensions import Dimension
from foredraft.settings.study import OBJECTIVES, Study
from speculation import Acceptance, cost

EVENLY = 4096
"""Rules that are spread over the space."""
REFINED = 2048
"""Rules that are tried round the front, each time."""
STEPS = (0.15, 0.05, 0.015)
"""How far from the front, as deviations along each dimension of the unit cube."""


class Table(NamedTuple):
    """The rules of one draft under one context policy."""

    settings: list[dict[str, Any]]
    goals_QD: Tensor
    """float64, the study's objectives, turned so that higher is better"""
    ratio_Q: Tensor
    """float64, the mse_ratio that is expected"""

    def within(self, budget: float) -> Tensor:
        """Which rules are expected to keep the accuracy budget, bool [Q]."""
        return self.ratio_Q <= budget


def enumerate_rules(
    study: Study,
    fixed: Mapping[str, Any],
    courses: Mapping[bool, Courses],
    costs: cost.PassCosts,
    *,
    evaluation: Evaluation,
    patch: int,
    reference_mse: float,
) -> Table:
    """What at least 10,000 rules are expected to come to.

    Args:
        study: its dimensions, objectives and budget.
        fixed: the settings of the draft and of the policy.
        courses: of the pair, by whether accepted patches are the draft's.
        costs: of the pair's passes.
        evaluation: horizon, policy and batch.
        patch: time steps of a patch.
        reference_mse: of the target alone under the study's reference policy.
    """
    searched = [name for name in study.dimensions if name not in fixed]
    generator = torch.Generator().manual_seed(study.seed)

    def tried(point_QI: Tensor) -> tuple[Tensor, Table]:
        found = [_settings(study.dimensions, fixed, searched, p) for p in point_QI.tolist()]
        known = [study.rule(settings).emits_draft in courses for settings in found]
        kept = [settings for settings, is_known in zip(found, known, strict=True) if is_known]
        goals_QD, ratio_Q = _expected(
            study,
            [study.rule(settings) for settings in kept],
            courses,
            costs,
            evaluation=evaluation,
            patch=patch,
            reference_mse=reference_mse,
        )
        return point_QI[torch.tensor(known)], Table(kept, goals_QD, ratio_Q)

    engine = torch.quasirandom.SobolEngine(max(1, len(searched)), scramble=True, seed=study.seed)
    parts = [tried(engine.draw(EVENLY, dtype=torch.float64))]
    for step in STEPS:
        point_QI = torch.cat([points for points, _ in parts])
        table = _together([part for _, part in parts])
        best = _front_of(table, study.budget)
        parents = best[torch.randint(len(best), (REFINED,), generator=generator)]
        noise = torch.randn(REFINED, point_QI.shape[1], generator=generator, dtype=torch.float64)
        near = (point_QI[parents] + step * noise).clamp(0.0, 1.0 - 1e-9)
        parts.append(tried(near))
    return _together([part for _, part in parts])


def _settings(
    dimensions: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
    searched: list[str],
    point: list[float],
) -> dict[str, Any]:
    shares = dict(zip(searched, point, strict=False))
    return rulebook.at(dimensions, shares, fixed=fixed)


def _expected(
    study: Study,
    rules: list[Acceptance],
    courses: Mapping[bool, Courses],
    costs: cost.PassCosts,
    *,
    evaluation: Evaluation,
    patch: int,
    reference_mse: float,
) -> tuple[Tensor, Tensor]:
    """The goals [Q, D] of some rules, and their mse_ratio [Q]."""
    groups: defaultdict[bool, list[int]] = defaultdict(list)
    for index, rule in enumerate(rules):
        groups[rule.emits_draft].append(index)
    goals_QD = torch.zeros(len(rules), len(study.objectives), dtype=torch.float64)
    ratio_Q = torch.zeros(len(rules), dtype=torch.float64)
    for emits_draft, indices in groups.items():
        some = [rules[index] for index in indices]
        expected = closed_form.expect(courses[emits_draft], some, steps=patch)
        speedup_Q = expected.speedups(costs, some, evaluation=evaluation, patch=patch)
        values = {
            "acceptance_rate": expected.acceptance_rate_Q,
            "accept_length": expected.accept_length_Q,
            "predicted_speedup": speedup_Q,
            "mse": expected.mse_Q,
            "mae": expected.mae_Q.nan_to_num(torch.inf),
            "mse_ratio": expected.mse_Q / reference_mse,
            "deviation": expected.deviation_Q,
        }
        signed = [values[n] if OBJECTIVES[n] == "max" else -values[n] for n in study.objectives]
        goals_QD[indices] = torch.stack(signed, 1)
        ratio_Q[indices] = values["mse_ratio"]
    return goals_QD, ratio_Q


def _front_of(table: Table, budget: float) -> Tensor:
    """The rules within the budget that no other such beats; the most accurate where none is."""
    within = table.within(budget).nonzero().flatten()
    if not len(within):
        return table.ratio_Q.argsort()[:32]
    return within[not_beaten(table.goals_QD[within])]


def _together(tables: list[Table]) -> Table:
    return Table(
        [settings for table in tables for settings in table.settings],
        torch.cat([table.goals_QD for table in tables]),
        torch.cat([table.ratio_Q for table in tables]),
    )
