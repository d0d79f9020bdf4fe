"""Claims about a study's front and choice on another device; none about how fast anything is.

Acceptance and errors stand, the predicted speedup is that of the other costs, and what was timed
stays behind. On the device of the search nothing changes. A choice that is not faster than the
target alone is none. Kept calibrations are used, costs travel as a file, and a file or a study that
will not do is refused in one line with exit code 2. Nothing needs Ray.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foredraft import bank, cli, files
from foredraft.bank import claims
from foredraft.documents import yaml_text
from foredraft.errors import ConfigError
from foredraft.judge import calibrations, timing
from foredraft.judge.calibrations import Calibration, Device, Key, Work
from foredraft.search import record as records
from foredraft.search import reprice
from foredraft.search.record import Record
from foredraft.search.references import Target
from foredraft.search.trial import Trial
from foredraft.settings.config import validated
from foredraft.settings.study import Study
from speculation import ContextPolicy, Plan, Tolerance, cost
from timer_xl import TimerXL, TimerXLConfig

MakeTrial = Callable[..., Trial]
DATA = "synthetic-etth:rows=1200"
STAGE = {"name": "scratch", "data": DATA, "epochs": 1}
MODEL = {"patch": 8, "context": 32, "d_model": 32, "n_heads": 4, "d_ff": 48}
PATCHES = 4
SLIDING, CACHED = ContextPolicy(), ContextPolicy("cached")
PAIRS = [("small", SLIDING), ("large", SLIDING), ("small", CACHED)]
DECODED = {"pass_rates": (0.9, 0.8)}


def study(**changes: Any) -> Study:
    tree = {
        "name": "tiny",
        "target": "t",
        "draft": {"stages": [STAGE]},
        "evaluation": {"data": DATA, "horizon": 8 * PATCHES, "windows": 4},
        "acceptance": {"rule": "tolerance", "mse_tol": 1.0},
        "dimensions": {
            "lookahead": {"type": "int", "low": 1, "high": 2},
            "context_policy": {"type": "categorical", "choices": ["sliding", "cached"]},
        },
    }
    return validated(Study, tree | changes, source="tiny")


def passes(draft_s: float, *, verify_s: float = 1.0) -> cost.PassCosts:
    """Costs of a target whose step takes a second, and of a draft whose patch takes `draft_s`."""
    drafts = (0.0, draft_s, 2 * draft_s)
    return cost.PassCosts((1,), (1.0,), ((verify_s,) * 3,), (drafts,), (0.0,), (0.0,))


def priced(pair: reprice.Pair, costs: cost.PassCosts, **work: Any) -> Calibration:
    """The calibration of a pair on a laptop, something of its work changed."""
    asked = {
        **{"target": "t", "draft": pair[0], "architectures": "0", "policy": pair[1]},
        **{"batch": 1, "horizon": 8 * PATCHES, "lookahead": 2, "variates": 7, "dtype": "fp32"},
    }
    device = Device(kind="cpu", name="laptop", threads=2)
    told = {"device": device.words, "host": "h", "time_utc": "now", "seconds": 1.0}
    key = Key(work=Work(**(asked | work)), device=device, pytorch="2.0")
    return Calibration(key=key, costs=costs, speedup_alone=5.0, **told)


def laptop(small: float = 0.1, large: float = 0.1, cached: float = 0.1) -> reprice.Costs:
    seconds = zip(PAIRS, (small, large, cached), strict=True)
    return {pair: priced(pair, passes(s)) for pair, s in seconds}


@pytest.fixture
def searched(make_trial: MakeTrial) -> Record:
    """A fast and a more accurate point, and one that was too slow where it was searched."""
    trials = (
        _trial(make_trial, 0, "small", predicted_speedup=2.0, mse=0.41, speedup=1.9),
        _trial(make_trial, 1, "large", predicted_speedup=1.5, mse=0.39, speedup=1.4),
        _trial(make_trial, 2, "large", predicted_speedup=1.2, mse=0.41, acceptance_rate=0.7),
        _trial(make_trial, 3, "small", policy=CACHED, predicted_speedup=1.1, mse=0.45),
        _trial(make_trial, 4, "small", stopped="front"),
        make_trial(5, error="gone"),
    )
    return Record(study(), trials, Target(key="t", parameters=9, patch=8, mse=0.4, mae=0.5))


def _trial(
    make: MakeTrial, number: int, draft: str, policy: ContextPolicy = SLIDING, **changes: Any
) -> Trial:
    settings = {"context_policy": policy.kind, "renorm_every": policy.renorm_every}
    rule = changes.pop("rule", Tolerance(mse_tol=1.0, lookahead=2))
    told = DECODED | changes
    return make(number, draft={"key": draft}, rule=rule, settings=settings, **told)


def numbers(points: list[records.Point]) -> list[int]:
    return [point.trial.number for point in points]


# What is told of another device


def test_acceptance_and_errors_stand_and_the_prediction_is_that_of_the_other_costs(
    searched: Record,
) -> None:
    here = reprice.repriced(searched, laptop(small=0.25))
    was, now = searched.trials[0].outcome, here.trials[0].outcome
    assert was
    assert now
    told = now.metrics.predicted_speedup
    assert told == pytest.approx(
        cost.predicted_speedup(passes(0.25), (0.9, 0.8), lookahead=2, patches=PATCHES)
    )
    same = was.metrics.model_copy(update={"predicted_speedup": told})
    assert now.metrics == same
    assert (now.costs, now.draft.speedup) == (passes(0.25), 5.0)
    assert not now.timing
    assert now.speedup == told


def test_each_trial_is_told_by_its_own_rule(make_trial: MakeTrial, searched: Record) -> None:
    """By its lookahead; and one that adapts is granted the best, or goes alone."""
    one = Tolerance(mse_tol=1.0, lookahead=1)
    adapts = Tolerance(mse_tol=1.0, lookahead=2, adapt=True)
    plan = Plan(passes(0.1), (0.9, 0.8))
    trials = [_trial(make_trial, n, "small", rule=rule) for n, rule in enumerate((one, adapts))]
    assert trials[1].outcome
    outcome = trials[1].outcome.model_copy(update={"plan": plan})
    trials[1] = trials[1].model_copy(update={"outcome": outcome})
    record = Record(searched.study, tuple(trials), searched.target)

    def told(draft_s: float) -> list[float]:
        found = reprice.repriced(record, laptop(small=draft_s)).trials
        return [t.outcome.metrics.predicted_speedup for t in found if t.outcome]

    slow = cost.predicted_speedup(passes(2.0), (0.9,), lookahead=1, patches=PATCHES)
    assert told(2.0) == pytest.approx([slow, 1.0])
    quick = Plan(passes(0.1), (0.9, 0.8)).best(patches=PATCHES)[1]
    assert told(0.1)[1] == pytest.approx(quick)
    now = reprice.repriced(record, laptop(small=2.0)).trials[1].outcome
    assert now
    assert now.plan == Plan(passes(2.0), (0.9, 0.8))


def test_a_point_that_was_beaten_may_be_on_the_front_of_another_device(searched: Record) -> None:
    assert numbers(searched.front) == [0, 1]
    cheap_to_cache = reprice.repriced(searched, laptop(small=0.5, large=0.5, cached=0.01))
    assert numbers(cheap_to_cache.front) == [1, 3]
    choice = cheap_to_cache.choice
    assert choice
    assert choice.trial.number == 3


def test_a_choice_that_is_not_faster_than_the_target_alone_is_none(searched: Record) -> None:
    slow = reprice.repriced(searched, laptop(small=9.0, large=9.0, cached=9.0))
    assert slow.front
    assert slow.choice is None


def test_a_choice_keeps_the_accuracy_budget(make_trial: MakeTrial, searched: Record) -> None:
    wrong = _trial(make_trial, 0, "small", mse_ratio=1.5)
    right = _trial(make_trial, 1, "large")
    record = Record(searched.study, (wrong, right), searched.target)
    choice = reprice.repriced(record, laptop(small=0.01, large=0.5)).choice
    assert choice
    assert choice.trial.number == 1


def test_what_was_stopped_or_failed_is_on_no_front_and_is_told_of(searched: Record) -> None:
    told = reprice.comparison(searched, laptop())
    assert {row["trial"] for row in told["front"]} <= {0, 1, 2, 3}
    assert any("stopped early" in note and ": 1;" in note for note in told["notes"])
    assert reprice.NOT_CARRIED in told["notes"]


def test_the_old_figures_stand_beside_the_new_ones(searched: Record) -> None:
    told = reprice.comparison(searched, laptop(small=0.5, large=0.5, cached=0.01))
    rows = {row["trial"]: row for row in told["front"]}
    assert {n: row["front"] for n, row in rows.items()} == {0: "before", 1: "both", 3: "here"}
    assert (rows[0]["predicted_before"], rows[0]["measured_before"]) == (2.0, 1.9)
    assert rows[3]["measured_before"] is None
    assert (told["choice"], told["choice_before"]) == (3, 0)
    assert {n: row["chosen"] for n, row in rows.items()} == {0: "before", 1: "-", 3: "here"}
    assert json.loads(json.dumps(told)) == told


def test_a_record_without_a_decoded_trial_is_refused(
    make_trial: MakeTrial, searched: Record
) -> None:
    untold = make_trial(0, pass_rates=())
    for trials in ((), (make_trial(0, error="gone"),), (untold,), searched.trials[4:]):
        empty = Record(searched.study, tuple(trials), searched.target)
        with pytest.raises(ConfigError, match="'tiny' has no trial that was decoded to its end"):
            reprice.pairs_of(empty)


# Costs as a file


def test_costs_that_were_written_are_read_as_the_same(tmp_path: Path, searched: Record) -> None:
    reprice.write_costs(tmp_path / "laptop.json", laptop())
    assert reprice.read_costs(tmp_path / "laptop.json", searched) == laptop()


@pytest.mark.parametrize(
    ("name", "value"),
    [("target", "u"), ("batch", 4), ("horizon", 40), ("lookahead", 1), ("dtype", "bf16")],
)
def test_costs_of_other_work_are_refused(
    tmp_path: Path, searched: Record, name: str, value: Any
) -> None:
    costs = dict(laptop())
    thin = cost.PassCosts((1,), (1.0,), ((1.0, 1.0),), ((0.0, 0.1),), (0.0,), (0.0,))
    odd = thin if name == "lookahead" else passes(0.1)
    costs[PAIRS[0]] = priced(PAIRS[0], odd, **{name: value})
    reprice.write_costs(tmp_path / "laptop.json", costs)
    with pytest.raises(ConfigError, match=f"{name} is {value}, and the study's is"):
        reprice.read_costs(tmp_path / "laptop.json", searched)


def test_a_file_of_costs_that_will_not_do_is_refused_in_one_line(
    tmp_path: Path, searched: Record
) -> None:
    path = tmp_path / "laptop.json"

    def refusal() -> str:
        with pytest.raises(ConfigError, match=str(path)) as refused:
            reprice.read_costs(path, searched)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "is missing" in refusal()
    path.write_text("{")
    assert "no whole JSON" in refusal()
    path.write_text("[]")
    assert "no costs by pair" in refusal()
    few = {pair: one for pair, one in laptop().items() if pair != PAIRS[2]}
    reprice.write_costs(path, few)
    assert "no costs of draft small cached" in refusal()
    assert "reprice tiny --write-costs" in refusal()
    other = laptop()[PAIRS[2]].model_copy(update={"device": "server"})
    reprice.write_costs(path, {**few, PAIRS[2]: other})
    assert "of laptop, 2 threads and of server" in refusal()
    content = json.loads(path.read_text())
    del content["small cached"]["costs"]["step_s"]
    path.write_text(json.dumps(content))
    assert "small cached: costs" in refusal()


# The command, with real models


@pytest.fixture
def storage(tmp_path: Path, make_trial: MakeTrial) -> Path:
    """A storage with a target, two drafts and a study of them that has ended."""
    torch.manual_seed(0)
    target, *drafts = (
        bank.add(
            TimerXL(TimerXLConfig(**MODEL, n_layers=layers)),
            kind=kind,
            storage=tmp_path,
            source=Path("x"),
        ).name
        for kind, layers in (("target", 3), ("draft", 1), ("draft", 2))
    )
    trials = [
        _trial(make_trial, number, draft, policy=policy, mse=0.4 - 0.01 * number)
        for number, (draft, policy) in enumerate(zip(drafts, (SLIDING, CACHED), strict=True))
    ]
    what = study(target=target)
    alone = Target(key=target, parameters=9, patch=8, mse=0.4, mae=0.5)
    contents = {
        "study.yaml": yaml_text(what.model_dump(mode="json")),
        "trials.json": json.dumps([trial.model_dump(mode="json") for trial in trials]),
        "references.json": json.dumps({"target": alone.model_dump()}),
    }
    for name, content in contents.items():
        files.atomic_write(tmp_path / "studies" / "tiny" / name, content)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    code = 0
    try:
        cli.main([str(word) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


def test_a_device_is_timed_once_and_its_costs_travel(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("reprice", "tiny", "--storage", storage, "--device", "cpu", "--threads", 1)
    path = storage / "here.json"
    code, out, err = run(capsys, *words, "--json", "--write-costs", path)
    assert code == 0, err
    first = json.loads(out)
    here = Device.here(torch.device("cpu"))
    assert first["device"] == here.words
    assert Path(first["written"]).parent == storage / "studies" / "tiny"
    assert json.loads(Path(first["written"]).read_text())["front"] == first["front"]
    kept = sorted((storage / "calibrations").iterdir())
    assert [calibrations.read(one).key.device for one in kept] == [here, here]

    monkeypatch.setattr(timing, "calibrate", None)  # whoever measures now fails
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out) == first
    elsewhere = ("reprice", storage / "studies" / "tiny", "--costs", path)
    code, out, err = run(capsys, *elsewhere)
    assert code == 0, err
    for said in (here.words, "predicted_here", "measured_before", "do not carry over"):
        assert said in out


def test_on_the_device_of_the_search_nothing_changes(storage: Path, searched: Record) -> None:
    directory = storage / "studies" / "tiny"
    what = study(target=next((storage / "targets").iterdir()).name)
    found = records.read(what, directory)
    costs = reprice.measured_here(found, storage=storage, device=torch.device("cpu"))
    once = reprice.repriced(found, costs)
    again = reprice.measured_here(once, storage=storage, device=torch.device("cpu"))
    assert again == costs
    assert reprice.repriced(once, again).trials == once.trials


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("never",), "study 'never' does not exist"),
        (("tiny", "--costs", "nowhere.json"), "nowhere.json is missing"),
        (("tiny", "--costs", "x.json", "--threads", "2"), "--costs tells of another device"),
    ],
)
def test_what_cannot_be_repriced_is_refused_in_one_line(
    storage: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    code, out, err = run(capsys, "reprice", *words, "--storage", storage)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err


def test_a_study_that_runs_or_is_empty_or_lost_a_draft_is_refused(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("reprice", "tiny", "--storage", storage, "--device", "cpu")
    directory = storage / "studies" / "tiny"
    with claims.held(storage / "claims" / "study-tiny"):
        code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "study-tiny is at work" in err
    draft = json.loads((directory / "trials.json").read_text())[0]["outcome"]["draft"]["key"]
    (storage / "drafts" / draft / files.COMPLETE).unlink()
    code, _, err = run(capsys, *words)
    assert code == 2
    assert draft in err
    (directory / "trials.json").write_text("[]")
    code, _, err = run(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert "no trial that was decoded" in err
    assert not list(directory.glob("repriced-*"))


def test_repricing_needs_no_ray() -> None:
    script = (
        "import sys, foredraft.search.reprice;"
        "print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr
