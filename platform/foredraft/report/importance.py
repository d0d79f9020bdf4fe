"""Which settings matter: their importances to each objective, as information and drawn.

By conditional PED-ANOVA (Watanabe et al., IJCAI 2023, and 2601.20800 for settings that exist only
beside another's value): how differently a setting is spread among the best tenth of the trials.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from plotly import graph_objects as go

from foredraft.report.axes import SETTING_LABELS
from foredraft.report.look import dress
from foredraft.report.overlay import COLOURS
from foredraft.report.tables import percent
from foredraft.search.record import Point, Record
from foredraft.search.samplers import distribution_of
from foredraft.settings.budgets import name_in_words
from foredraft.settings.study import OBJECTIVES

FEWEST = 20
"""Complete trials below which a tenth of them tells nothing."""
READING = (
    "The longer a bar, the more the best tenth of the trials in that objective agree on the "
    "setting; the bars of one objective add up to all. All searched settings are there, those too "
    "that exist beside some rules or drafts alone."
)


class ObjectiveImportances(NamedTuple):
    """What one objective hangs on, the most important setting first; the shares add up to 1."""

    objective: str
    shares: tuple[tuple[str, float], ...]


class ImportanceInfo(NamedTuple):
    """The importances of all searched settings to each objective."""

    objectives: tuple[ObjectiveImportances, ...]
    trials: int


def importance_info(record: Record) -> ImportanceInfo | None:
    """What `importance_figure` shows; None of too few trials, or where nothing was drawn."""
    points = record.complete
    if len(points) < FEWEST:
        return None
    study = _study(record, points)
    if not any(trial.params for trial in study.get_trials(deepcopy=False)):
        return None
    found = []
    # Optuna says of each objective that it takes low values for good ones: they are turned so.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, name in enumerate(record.study.objectives):
            shares = get_param_importances(
                study,
                evaluator=PedAnovaImportanceEvaluator(),
                target=functools.partial(_value, place),
            )
            found.append(ObjectiveImportances(name, tuple(shares.items())))
    return ImportanceInfo(tuple(found), len(points))


def _study(record: Record, points: Sequence[Point]) -> optuna.Study:
    """The trials in memory as Optuna has them, every objective turned so that low is good."""
    names, dimensions = record.study.objectives, record.study.dimensions
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * len(names))
    optuna.logging.set_verbosity(verbosity)
    distributions = {name: distribution_of(one) for name, one in dimensions.items()}
    for point in points:
        own = point.trial.settings
        drawn = {n: own[n] for n in dimensions if n in own and dimensions[n].holds(own[n])}
        values = [point.outcome.objective(name) for name in names]
        study.add_trial(
            optuna.trial.create_trial(
                params=drawn,
                distributions={name: distributions[name] for name in drawn},
                values=[
                    -v if OBJECTIVES[n] == "max" else v for n, v in zip(names, values, strict=True)
                ],
            )
        )
    return study


def _value(place: int, trial: optuna.trial.FrozenTrial) -> float:
    value: float = trial.values[place]
    return value


def importance_figure(info: ImportanceInfo) -> go.Figure:
    """A bar for each setting and objective."""
    total: dict[str, float] = {}
    for one in info.objectives:
        for name, share in one.shares:
            total[name] = total.get(name, 0.0) + share
    order = sorted(total, key=lambda name: total[name])
    figure = go.Figure()
    for place, one in enumerate(info.objectives):
        shares = dict(one.shares)
        figure.add_bar(
            orientation="h",
            name=name_in_words(one.objective),
            y=[label(name) for name in order],
            x=[shares.get(name, 0.0) for name in order],
            marker_color=COLOURS[place % len(COLOURS)],
            hovertemplate="%{y}: %{x:.1%} of %{fullData.name}<extra></extra>",
        )
    figure.update_xaxes(title="share of what the objective hangs on", tickformat=".0%")
    dress(figure, 200 + 22 * len(order) * max(1, len(info.objectives)) // 2, ())
    return figure.update_layout(barmode="group", bargap=0.25, legend_traceorder="reversed")


def label(setting: str) -> str:
    """A setting's name in a figure."""
    return SETTING_LABELS.get(setting, setting.replace("_", " "))


def sentence(info: ImportanceInfo) -> str:
    """What the figure says, in one line."""
    parts = []
    for one in info.objectives:
        name, share = one.shares[0]
        parts.append(f"{name_in_words(one.objective)} on {label(name)} ({percent(share)})")
    return f"Of {info.trials} complete trials, each objective hangs most: {', '.join(parts)}."
