"""A study: what is searched, on what it is judged, and what it may cost; checked as a whole.

    study = read_study(Path("search_spaces/etth1.yaml"))
    rule, policy = study.rule(settings), study.policy(settings)

Nothing here runs anything. Whatever can be found wrong without training or timing is found here,
so that a study which starts can also end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

import foredraft
from foredraft.data import Missing, Reading
from foredraft.documents import read_mapping
from foredraft.errors import ConfigError, Stopped
from foredraft.settings import places, rules
from foredraft.settings.budgets import Budget
from foredraft.settings.config import (
    Count,
    Evaluation,
    Machine,
    Name,
    Seed,
    Settings,
    Training,
    validated,
)
from foredraft.settings.dimensions import Dimension, by_dependency, combinations
from foredraft.settings.drafts import DRAFT_DIMENSIONS, DraftPlan, beside_models, check_effect
from foredraft.settings.recipes import RECIPES
from speculation import Acceptance, ContextPolicy, InvalidInput
from speculation.forecaster import Architecture, check_policy
from speculation.rules.words import field_names

OBJECTIVES = {
    "acceptance_rate": "max",
    "accept_length": "max",
    "predicted_speedup": "max",
    "mse": "min",
    "mae": "min",
    "mse_ratio": "min",
    "deviation": "min",
    "deviation_ratio": "min",
}
"""What a study may optimise, and which way each of them is better."""

# What a dimension may be called, beside the fields of the rules and what is about drafts: how both
# models read.
POLICY_DIMENSIONS = ("context_policy", "renorm_every")
SPACES = "search_spaces"
"""The folder of the studies that foredraft brings with it."""


class StudyStopped(Stopped):
    """A study that ended before its last trial, and why; what was reported is kept."""


class Study(Settings):
    """A joint search over drafts and acceptance rules: one YAML file."""

    name: Name
    target: Training | str
    """a training, a recipe's name, or the directory or key of a trained target"""
    draft: DraftPlan
    evaluation: Evaluation
    acceptance: dict[str, Any] = Field({})
    """fields of the acceptance rule that are not searched"""
    dimensions: Annotated[dict[str, Dimension], Field(min_length=1)]
    """what is searched, by name"""
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "acceptance_rate",
        "predicted_speedup",
        "mse",
    )
    """what the front is made of; each is maximised or minimised as its nature is"""
    reference: ContextPolicy = ContextPolicy()
    """how the target reads that all trials are held against, whatever policy they have: its own
    protocol, unless those who deploy it run it otherwise"""
    budget: Budget = Budget(mse_ratio=1.01)
    """what a trial that may be chosen keeps: `mse_ratio: 1.01` (accuracy against what happened),
    `deviation_ratio: 0.01` (nearness to the target's own forecast under `reference`), or both; a
    plain number means mse_ratio"""
    sampler: Literal["nested", "tpe", "nsgaii", "gp", "random"] = "nested"
    """`nested` goes through all rules of a draft in closed form and decodes those that are expected
    to add to the front; the others are Optuna's, over everything together (`gp` needs scipy and
    one to two seconds per suggestion)"""
    outer: Literal["gain", "tpe", "nsgaii", "gp", "random"] = "gain"
    """how `nested` picks the next draft: by what its front is expected to add a second, or by one
    of Optuna's samplers"""
    first: tuple[dict[str, Any], ...] = ()
    """settings to try before the sampler has its way; what they leave out is drawn"""
    warm_start: str | None = None
    """name of an earlier study in the same storage from which this one starts"""
    database: str | None = None
    """SQLAlchemy URL of Optuna's storage, such as postgresql://team@host/optuna (give the password
    by PGPASSWORD or ~/.pgpass); null for an SQLite file in the study's directory"""
    trials: Count = 40
    """to be reported in all, those that failed or were stopped included"""
    startup_trials: Count = 10
    """trials drawn at random before one of Optuna's samplers models them; `nested` needs none"""
    stop_early: bool = True
    """whether a trial is left undecoded of which the closed form tells that it will miss the
    budget or the front, even if it were wrong by twice what it ever was in this study"""
    confirm_pairs: Count = 20
    """timed pairs per point of the front and device, when the search has ended"""
    confirm_windows: Count | None = None
    """windows of the test split for the points of the front; null for as many as in the search"""
    seed: Seed = 0
    machine: Machine = Machine()

    @field_validator("dimensions")
    @classmethod
    def _in_an_order_that_can_be_drawn(
        cls, dimensions: dict[str, Dimension]
    ) -> dict[str, Dimension]:
        return by_dependency(beside_models(rules.beside_their_rules(dimensions)))

    @model_validator(mode="after")
    def _holds_together(self) -> Study:
        self._check_objectives()
        self._check_sampler()
        self._check_dimensions()
        rules.check_fields(self.acceptance, self.dimensions)
        for settings in combinations(
            self.dimensions, lambda _, dimension: dimension.ends, only=POLICY_DIMENSIONS
        ):
            self.policy(settings)
        self._check_first()
        return self

    def _check_objectives(self) -> None:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ValueError(
                    f"objective {name!r} does not exist; there are {', '.join(OBJECTIVES)}"
                )
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives are {', '.join(self.objectives)}: name each once")

    def _check_sampler(self) -> None:
        if self.outer != "gain" and self.sampler != "nested":
            raise ValueError(
                f"outer is {self.outer!r}: it has no effect where sampler is {self.sampler!r}; "
                "leave it out, or set sampler: nested"
            )

    def _check_dimensions(self) -> None:
        known = (*DRAFT_DIMENSIONS, *POLICY_DIMENSIONS, *field_names())
        for name, dimension in self.dimensions.items():
            if name not in known:
                raise ValueError(f"dimensions.{name} does not exist; known are {', '.join(known)}")
            if name in self.acceptance:
                raise ValueError(f"acceptance.{name} is fixed and dimensions.{name} searches it")
            if len(set(dimension.ends)) == 1 and not dimension.when:
                raise ValueError(
                    f"dimensions.{name} has no effect: its one value is {dimension.ends[0]!r}; "
                    "fix it instead"
                )
            for parent, values in dimension.when.items():
                self._check_condition(name, parent, values)
        self.draft.check_dimensions(self.dimensions)
        self.draft.check_lookahead(self.longest_lookahead, self.dimensions)
        self._check_policy_dimensions()

    def _check_condition(self, name: str, parent: str, values: list[Any]) -> None:
        for value in values:
            if not self.dimensions[parent].holds(value):
                raise ValueError(
                    f"dimensions.{name}.when.{parent} is {value!r}: "
                    f"dimension {parent} never has that value"
                )

    def _check_policy_dimensions(self) -> None:
        searched = [name for name in POLICY_DIMENSIONS if name in self.dimensions]
        if searched and self.evaluation.policy != ContextPolicy():
            raise ValueError(
                f"evaluation.policy is fixed and dimensions.{searched[0]} searches it: leave one"
            )

    def _check_first(self) -> None:
        for number, settings in enumerate(self.first):
            for name, value in settings.items():
                where = f"first.{number}.{name}"
                if name not in self.dimensions:
                    raise ValueError(f"{where} is no dimension of this study")
                if not self.dimensions[name].holds(value):
                    raise ValueError(f"{where} is {value!r}: the dimension never has that value")

    def rule(self, settings: dict[str, Any]) -> Acceptance:
        """The acceptance rule of one trial's settings.

        Raises:
            ConfigError: a field that the rule lacks, does not know or has no use for.
        """
        searched = {k: v for k, v in settings.items() if k in field_names()}
        return rules.rule_of({**self.acceptance, **searched}, source="acceptance")

    def policy(self, settings: dict[str, Any]) -> ContextPolicy:
        """How both models read under one trial's settings.

        Raises:
            ValueError: a field that the policy has no use for.
        """
        fixed = self.evaluation.policy
        kind = settings.get("context_policy", fixed.kind)
        return ContextPolicy(kind, settings.get("renorm_every", fixed.renorm_every))

    @property
    def referred_to(self) -> Evaluation:
        """The evaluation of the target alone that all trials are held against."""
        return self.evaluation.model_copy(update={"policy": self.reference})

    def judged_on(self, settings: dict[str, Any]) -> Evaluation:
        """The evaluation of one trial's settings."""
        return self.evaluation.model_copy(update={"policy": self.policy(settings)})

    def draft_training(
        self, target: Architecture, settings: dict[str, Any], *, path: Path
    ) -> Training:
        """The training of the draft of one trial's settings; the target's directory is `path`."""
        return self.draft.training(target, settings, path=path)

    def drafts_of(self, target: Architecture, *, path: Path) -> list[Training]:
        """Every distinct training of a draft that a trial may ask for, smallest model first.

        Raises:
            ConfigError: a factor at which nothing can be built.
        """
        return self.draft.trainings(target, self.dimensions, path=path)

    def check_target(self, target: Architecture) -> None:
        """Nothing, where this study can be run on a target of that architecture.

        Raises:
            ConfigError: a horizon without anything to speed up, a lookahead that it has no room
                for, a factor at which nothing can be built or that makes no difference, or a
                context policy under which models of its family do not read.
        """
        patches = -(-self.evaluation.horizon // target.patch)
        if patches == 1:
            raise ConfigError(
                f"evaluation.horizon is {self.evaluation.horizon}: that is one patch of "
                f"{target.patch}, which nothing can speed up; at least {target.patch + 1} would do"
            )
        longest = self.longest_lookahead
        if longest > patches - 1:
            raise ConfigError(
                f"lookahead goes up to {longest}: a horizon of {patches} patches has room for "
                f"{patches - 1}, and more is the same as that"
            )
        self._check_policies(target)
        self.drafts_of(target, path=Path())
        check_effect(target, self.dimensions)

    def _check_policies(self, target: Architecture) -> None:
        tried = [("reference", self.reference)]
        for settings in combinations(
            self.dimensions, lambda _, dimension: dimension.ends, only=POLICY_DIMENSIONS
        ):
            where = "dimensions.context_policy" if settings else "evaluation.policy"
            tried.append((where, self.policy(settings)))
        for index, stage in enumerate(self.draft.heads.stages if self.draft.heads else ()):
            if stage.policy is not None:
                tried.append((f"draft.heads.stages.{index}.policy", stage.policy))
        for where, policy in tried:
            try:
                check_policy(target, policy)
            except InvalidInput as error:
                raise ConfigError(f"{where}: {error}") from error

    @property
    def longest_lookahead(self) -> int:
        """Patches that a trial may propose in a round, at most."""
        searched = self.dimensions.get("lookahead")
        fixed = int(self.acceptance.get("lookahead", Acceptance.lookahead))
        if searched is None:
            return fixed
        return max(int(max(searched.ends)), fixed if searched.when else 1)

    @property
    def sources(self) -> list[tuple[str, Missing, Reading]]:
        """The data that are read, by the evaluation and by every stage of target and drafts."""
        plans = list(self.draft.every_plan)
        if isinstance(self.target, Training):
            plans.append(self.target.stages)
        elif self.target in RECIPES:
            plans.append(RECIPES[self.target]().stages)
        first = self.evaluation
        return [(first.data, first.missing, first.reading)] + [
            (name, stage.missing, stage.reading)
            for plan in plans
            for stage in plan
            for name in stage.sources
        ]

    def located(self, *folders: Path) -> Study:
        """The study with every file that it names as an absolute path.

        A relative path is looked for in each of the folders; what is in none of them, such as a
        data set's name, a recipe or a model's key, stays as it stands.

        Raises:
            ConfigError: one stage names the same file in two ways.
        """
        target, draft, evaluation = self.target, self.draft, self.evaluation
        plans = {n: places.of_stages(plan, folders) for n, plan in draft.plans.items()}
        heads = draft.heads and draft.heads.model_copy(
            update={"stages": places.of_stages(draft.heads.stages, folders)}
        )
        stages = places.of_stages(draft.stages, folders)
        data = places.of_data(evaluation.data, folders)
        return self.model_copy(
            update={
                "target": places.of_target(target, folders)
                if isinstance(target, str)
                else places.of_training(target, folders),
                "draft": draft.model_copy(
                    update={"stages": stages, "plans": plans, "heads": heads}
                ),
                "evaluation": evaluation.model_copy(update={"data": data}),
            }
        )


def spaces() -> dict[str, Path]:
    """The studies that foredraft brings with it, by name."""
    package = Path(foredraft.__file__).parent
    # In an installed package, and in a clone.
    folders = (package / SPACES, package.parents[1] / SPACES)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _brought(path: Path) -> Path:
    """The study of that name that foredraft brings with it."""
    is_name = path.parent in (Path(), Path(SPACES)) and path.suffix in ("", ".yaml")
    found = spaces().get(path.stem) if is_name else None
    if found is None:
        raise ConfigError(
            f"{path} does not exist: give the path of a study's YAML file, or the name of one that "
            f"foredraft brings with it ({', '.join(spaces())})"
        )
    return found


def read_study(path: Path) -> Study:
    """The study of a YAML file, its data and its target as absolute paths.

    A relative path in it is meant from where the command runs, as `--storage` is; a file that is
    not there but lies beside the YAML is that one. Where there is no such file, `demo` and
    `search_spaces/demo.yaml` are the study of that name that foredraft brings with it.

    Raises:
        ConfigError: the file is missing, is no YAML, or says something that cannot be run.
    """
    if not path.is_file():
        path = _brought(path)
    study = validated(Study, read_mapping(path, what="a study"), source=str(path))
    return study.located(Path.cwd(), path.absolute().parent)
