"""Claims about how data are read, as it is said on the command line and in YAML.

- Each verb that reads data takes the same flags, and each flag reaches what it reads.
- `reading` and `missing` are fields of every stage and evaluation; a flag changes them all, and
  what no flag says stays as the configuration has it.
- A key of a model holds how its data were read only where that is not as they show themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from foredraft import bank, train
from foredraft.cli.command import main, parsed
from foredraft.cli.reading import ReadsData
from foredraft.cli.training import _changed
from foredraft.data import Reading, load
from foredraft.errors import ConfigError
from foredraft.settings.config import Evaluation, Machine, Stage, Training
from foredraft.settings.ladders import ladder_of
from foredraft.settings.recipes import recipe
from timer_xl import TimerXLConfig

FLAGS = ["--time", "when", "--columns", "b", "a", "--ignore", "id", "--sep", "tab", "--na", "n.d."]
FLAGS += ["--decimal", ",", "--dayfirst", "--timezone", "Europe/Berlin", "--step", "D"]
FLAGS += ["--missing", "seasonal"]
READING = Reading(
    time="when",
    columns=("b", "a"),
    ignore=("id",),
    sep="tab",
    na=("n.d.",),
    decimal=",",
    dayfirst=True,
    timezone="Europe/Berlin",
    step="D",
)
GIVEN = ReadsData(missing="interpolate", sep=";", ignore=(("id",), ("no",)))
TINY = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48)
VERBS = [
    "data check x.csv",
    "train target --recipe demo",
    "train draft --target t --scale 0.5",
    "evaluate --target t --draft d --data x.csv",
    "bench --target t --draft d --data x.csv",
    "progression --recipe demo",
    "forecast --recipe r --data x.csv --out o.csv",
]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def odd() -> str:
    """Days first, points for thousands, two columns that are no variates."""
    days = pd.date_range("2024-01-01", periods=90)
    load = np.random.default_rng(0).normal(5.0, 1.0, size=90).round(3)
    table = {"id": range(7, 97), "when": days.strftime("%d/%m/%Y"), "a": load, "b": load + 0.25}
    pd.DataFrame(table).to_csv("odd.csv", sep=";", decimal=",", index=False)
    return "odd.csv"


@pytest.mark.parametrize("words", VERBS)
def test_every_verb_that_reads_data_takes_the_same_flags(words: str) -> None:
    verb = parsed([*words.split(), *FLAGS])
    assert isinstance(verb, ReadsData)
    assert verb.reading == READING
    assert verb.missing == "seasonal"
    assert parsed(words.split()).reading == Reading()  # type: ignore[attr-defined]


def test_month_first_is_a_flag_of_its_own_and_contradicts_day_first() -> None:
    assert ReadsData(monthfirst=True).reading.dayfirst is False
    with pytest.raises(ConfigError, match="--dayfirst and --monthfirst are both given"):
        _ = ReadsData(dayfirst=True, monthfirst=True).reading
    with pytest.raises(ConfigError, match="--sep is empty"):
        _ = ReadsData(sep="").reading


def test_flags_change_every_stage_and_leave_what_they_do_not_say() -> None:
    own = recipe("demo").model_copy(
        update={"stages": (Stage(name="scratch", data="x.csv", missing="skip"),) * 2}
    )
    made = _changed(own, (), seed=None, flags=ReadsData(sep=";"))
    assert [stage.missing for stage in made.stages] == ["skip", "skip"]
    assert [stage.reading for stage in made.stages] == [Reading(sep=";")] * 2
    made = _changed(own, (), seed=None, flags=GIVEN)
    assert {stage.missing for stage in made.stages} == {"interpolate"}
    assert made.stages[0].reading == Reading(sep=";", ignore=("id", "no"))
    assert _changed(own, (), seed=None, flags=ReadsData()) == own


def test_one_field_of_a_reading_can_be_set() -> None:
    made = _changed(
        recipe("demo"), (("stages.0.reading.decimal=,",),), seed=None, flags=ReadsData()
    )
    assert made.stages[0].reading == Reading(decimal=",")


def test_flags_reach_every_rung_of_a_ladder_and_what_judges_it() -> None:
    ladder = ladder_of("demo", read=GIVEN.given)
    stages = [stage for rung in ladder.rungs for stage in rung.stages]
    assert {stage.missing for stage in (*stages, ladder.evaluation)} == {"interpolate"}
    assert {stage.reading for stage in (*stages, ladder.evaluation)} == {GIVEN.reading}
    assert ladder_of("demo", read=ReadsData().given) == ladder_of("demo")


def test_yaml_has_the_same_fields() -> None:
    content = {"data": "x.csv", "missing": "skip", "reading": {"sep": ";", "ignore": ["id"]}}
    wanted = Reading(sep=";", ignore=("id",))
    assert Stage.model_validate({"name": "scratch"} | content).reading == wanted
    assert Evaluation.model_validate(content).reading == wanted
    with pytest.raises(ValidationError, match=r"reading\.sepp"):
        Evaluation.model_validate({"data": "x.csv", "reading": {"sepp": ";"}})


def test_what_is_said_is_how_the_file_is_read() -> None:
    said = Reading(time="when", columns=("b",), dayfirst=True)
    dataset = load(odd(), reading=said)
    assert dataset.variates == ("b",)
    assert dataset.time is not None
    assert dataset.time[1] == pd.Timestamp("2024-01-02")
    assert load("odd.csv", reading=said.model_copy(update={"columns": ("a",)})).variates == ("a",)


def test_the_remedy_of_a_refusal_reads_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    days = pd.date_range("2024-01-01", periods=12).strftime("%d/%m/%Y")
    pd.DataFrame({"date": days, "load": np.arange(12.0) ** 2}).to_csv("days.csv", index=False)
    with pytest.raises(SystemExit):
        main(["data", "check", "days.csv"])
    line = capsys.readouterr().err
    assert "is 2 January 2024 or 1 February 2024" in line
    assert "--dayfirst or --monthfirst" in line
    for flag, step in (("--dayfirst", "D"), ("--monthfirst", "MS")):
        main(["data", "check", "days.csv", flag, "--json"])
        assert f'"{step}"' in capsys.readouterr().out


def test_a_reading_as_the_data_show_themselves_is_in_no_key() -> None:
    source = odd()
    reading = Reading(time="when", ignore=("id",))

    def facts(**changes: object) -> dict[str, object]:
        stage = {"name": "scratch", "data": source, "reading": reading} | changes
        training = Training(model=TINY, stages=(Stage.model_validate(stage),))
        stages: list[dict[str, object]] = bank.store.facts_of(training, machine=Machine())["stages"]
        return stages[0]

    assert "time" in json.dumps(facts()["reading"])
    pd.read_csv(source, sep=";", decimal=",").drop(columns="id").to_csv("plain.csv", index=False)
    plain = facts(data="plain.csv", reading=Reading(), missing="refuse")
    assert not {"reading", "missing"} & set(plain)


def test_data_of_two_stretches_of_time_are_no_stage_and_two_anchors_of_one_are() -> None:
    for name, freq in (("ends", "ME"), ("starts", "MS"), ("days", "D"), ("business", "B")):
        time = pd.date_range("1990-01-01", periods=600 if freq in "DB" else 300, freq=freq)
        noise = np.random.default_rng(0).normal(size=len(time))
        pd.DataFrame({"date": time, "load": noise}).to_csv(f"{name}.csv", index=False)

    def checked(*names: str) -> None:
        weights = {f"{name}.csv": 1.0 for name in names}
        stage = Stage(name="scratch", data=weights)
        train.needs.checked(Training(model=TINY, stages=(stage,)), workers=1)

    checked("ends", "starts")
    with pytest.raises(ConfigError, match=r"days.csv has D, business.csv has B"):
        checked("days", "business")
