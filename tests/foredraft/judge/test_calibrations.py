"""Claims about kept calibrations; none about how many seconds there are.

A pair is measured once per device and work, whoever asks; what changes its seconds changes its key,
and nothing else does. A file that cannot be used is refused in one line, never measured over.

- A burst of load while a pair is measured has it measured again; where no try was steady the file
  says so, and the next process measures anew.
- A kept one that is far slower than the device is replaced by a steady one, looked at once a
  process; one that is faster, or only somewhat slower, stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foredraft.errors import ConfigError
from foredraft.judge import calibrations
from foredraft.judge.calibrations import Calibration, Device, Key, Prices, Timers, Work
from foredraft.judge.evaluate import EvaluationWindows
from foredraft.settings.config import Evaluation
from speculation import ContextPolicy
from speculation.cost import PassCosts
from timer_xl import TimerXL, TimerXLConfig

CONFIG = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
SMALL = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=1)
EVALUATION = Evaluation(data="any", horizon=32, batch=2)
COSTS = PassCosts((1,), (1.0,), ((1.0, 1.1, 1.2),), ((0.0, 0.2, 0.4),), (0.0,), (0.0,))
PRICES = Prices(COSTS, 3.0)
LAPTOP = Device(kind="cpu", name="laptop", threads=2)


def work(**changes: Any) -> Work:
    """Work on a pair, a part of it or of the evaluation changed."""
    given: dict[str, Any] = {"target": ("t", CONFIG), "draft": ("d", SMALL), "lookahead": 2}
    names = [n for n in changes if n in (*given, "variates")]
    given |= {"variates": 3} | {n: changes.pop(n) for n in names}
    return Work.of(EVALUATION.model_copy(update=changes), **given)


def key(device: Device = LAPTOP, **changes: Any) -> Key:
    return Key(work=work(**changes), device=device, pytorch="2.0")


def counted(*answers: Prices) -> tuple[Callable[[], Prices], list[Prices]]:
    """What measures, and what it told so far."""
    told: list[Prices] = []

    def measure() -> Prices:
        told.append(answers[min(len(told), len(answers) - 1)])
        return told[-1]

    return measure, told


def timers(measure: Callable[[], Prices], *steps_s: float) -> Timers:
    """What measures, and what a plain step takes each time it is asked: the last for ever."""
    told: Iterator[float] = iter(steps_s)
    last = steps_s[-1] if steps_s else 1.0
    return Timers(measure, lambda: next(told, last))


def slowed(factor: float) -> Prices:
    """What is told of the same pair beside other load."""
    step, verify, draft, *anchors = list(vars(COSTS).values())[1:]
    more = [tuple(tuple(factor * s for s in column) for column in part) for part in (verify, draft)]
    return Prices(PassCosts((1,), (factor * step[0],), *more, *anchors), 3.0)


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What makes this process one that has looked at no calibration yet."""
    return lambda: monkeypatch.setattr(calibrations, "_checked", set())


def test_a_burst_of_load_while_a_pair_is_measured_has_it_measured_again(tmp_path: Path) -> None:
    for number, (steps_s, first) in enumerate(
        [((1.0, 1.6, 1.0), PRICES), ((1.6, 1.0), PRICES), ((1.0, 1.0), slowed(2.1))]
    ):
        measure, told = counted(first, Prices(COSTS, 9.0))
        found = calibrations.obtain(
            key(), timers=timers(measure, *steps_s), storage=tmp_path / str(number)
        )
        assert len(told) == 2
        assert (found.speedup_alone, found.costs, found.steady) == (9.0, COSTS, True)


def test_where_no_try_is_steady_the_steadiest_is_kept_and_the_next_process_measures_anew(
    tmp_path: Path, another_process: Callable[[], None]
) -> None:
    measure, told = counted(*(Prices(COSTS, s) for s in (1.0, 2.0, 3.0)))
    restless = timers(measure, 1.0, 1.9, 1.0, 1.6, 1.0, 1.9)
    first = calibrations.obtain(key(), timers=restless, storage=tmp_path)
    assert len(told) == calibrations.TRIES
    assert (first.speedup_alone, first.steady) == (2.0, False)
    measure, told = counted(Prices(COSTS, 9.0))
    assert calibrations.obtain(key(), timers=timers(measure), storage=tmp_path) == first
    assert not told
    another_process()
    again = calibrations.obtain(key(), timers=timers(measure), storage=tmp_path)
    assert (again.speedup_alone, again.steady) == (9.0, True)


def _after(
    kept: Prices, found: Prices, *steps_s: float, storage: Path, another: Callable[[], None]
) -> tuple[Calibration, int]:
    """What another process is told of a kept calibration, and how often it measured."""
    steady = timers(lambda: kept, kept.costs.step_s[0])
    calibrations.obtain(key(), timers=steady, storage=storage)
    another()
    measure, told = counted(found)
    got = [
        calibrations.obtain(key(), timers=timers(measure, *steps_s), storage=storage)
        for _ in range(2)
    ]
    assert got[0] == got[1]
    return got[0], len(told)


def test_a_kept_one_that_is_far_slower_than_the_device_is_measured_anew_by_the_next_process(
    tmp_path: Path, another_process: Callable[[], None]
) -> None:
    found, times = _after(slowed(2.1), PRICES, 1.0, storage=tmp_path, another=another_process)
    assert (found.costs, times) == (COSTS, 1)


@pytest.mark.parametrize("step_s", [0.55, 1.0, 5.0])
def test_a_kept_one_that_may_be_true_stays_whatever_load_there_is_now(
    step_s: float, tmp_path: Path, another_process: Callable[[], None]
) -> None:
    other = slowed(step_s)
    found, times = _after(PRICES, other, step_s, storage=tmp_path, another=another_process)
    assert (found.costs, times) == (COSTS, 0)


@pytest.mark.parametrize("restless", [slowed(-1.0), slowed(9.0)], ids=["free", "slow"])
def test_a_kept_one_gives_way_to_none_that_is_not_steady(
    restless: Prices, tmp_path: Path, another_process: Callable[[], None]
) -> None:
    kept = slowed(2.1)
    found, times = _after(kept, restless, 1.0, storage=tmp_path, another=another_process)
    assert (found.costs, times) == (kept.costs, calibrations.TRIES)


def test_a_pair_is_measured_once_and_every_later_one_is_told_the_same(tmp_path: Path) -> None:
    measure, told = counted(PRICES, Prices(COSTS, 9.0))
    first = calibrations.obtain(key(), timers=timers(measure), storage=tmp_path)
    again = calibrations.obtain(key(), timers=timers(measure), storage=tmp_path)
    assert len(told) == 1
    assert first == again
    assert (first.costs, first.speedup_alone) == (COSTS, 3.0)
    assert first.device == "laptop, 2 threads"
    assert first.versions["torch"] == str(torch.__version__)


def test_two_kinds_of_device_are_on_one_scale_each(tmp_path: Path) -> None:
    gpu = Device(kind="cuda", name="a GPU")
    measure, told = counted(PRICES, Prices(COSTS, 9.0))
    for _ in range(2):
        found = [
            calibrations.obtain(key(device), timers=timers(measure), storage=tmp_path).speedup_alone
            for device in (LAPTOP, gpu)
        ]
        assert found == [3.0, 9.0]
    assert len(told) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"target": ("other", CONFIG)},
        {"draft": ("other", SMALL)},
        {"draft": ("d", CONFIG)},
        {"policy": ContextPolicy("cached")},
        {"policy": ContextPolicy("cached", renorm_every=2)},
        {"batch": 4},
        {"horizon": 40},
        {"lookahead": 1},
        {"variates": 7},
        {"dtype": "bf16"},
        {"device": Device(kind="cpu", name="laptop", threads=4)},
        {"device": Device(kind="cpu", name="server", threads=2)},
    ],
    ids=str,
)
def test_whatever_changes_the_seconds_is_measured_by_itself(changes: dict[str, Any]) -> None:
    paths = [calibrations.path_of(one, storage=Path()) for one in (key(), key(**changes))]
    assert paths[0] != paths[1]


@pytest.mark.parametrize(
    "changes",
    [{"windows": 8}, {"split": "test"}, {"data": "other"}, {"lookahead": 2, "season": 24}],
    ids=str,
)
def test_what_changes_no_second_does_not(changes: dict[str, Any]) -> None:
    assert key(**changes) == key()


def test_a_lookahead_that_the_horizon_has_no_room_for_is_the_longest_that_it_has() -> None:
    assert key(lookahead=3) == key(lookahead=50)
    assert key(lookahead=3).work.lookahead == 3
    assert key(horizon=8, lookahead=4).work.lookahead == 1


def test_of_two_that_ask_at_once_one_measures(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def slowly() -> Prices:
        told.append("slow")
        begun.set()
        go_on.wait(30)
        return PRICES

    def other() -> Prices:
        told.append("other")
        return Prices(COSTS, 9.0)

    found: list[float] = []

    def ask(measure: Callable[[], Prices]) -> None:
        kept = calibrations.obtain(key(), timers=timers(measure), storage=tmp_path)
        found.append(kept.speedup_alone)

    first = threading.Thread(target=ask, args=(slowly,))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=ask, args=(other,))
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(30)
    assert told == ["slow"]
    assert found == [3.0, 3.0]


def test_a_measurement_that_failed_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> Prices:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        calibrations.obtain(key(), timers=timers(fail), storage=tmp_path)
    assert (
        calibrations.obtain(key(), timers=timers(lambda: PRICES), storage=tmp_path).costs == COSTS
    )


def test_a_step_that_takes_no_time_is_timed_again_and_never_kept(tmp_path: Path) -> None:
    free = Prices(PassCosts((1,), (-0.1,), *list(vars(COSTS).values())[2:]), 3.0)
    measure, told = counted(free, PRICES)
    assert calibrations.obtain(key(), timers=timers(measure), storage=tmp_path).costs == COSTS
    assert told == [free, PRICES]
    measure, told = counted(free)
    with pytest.raises(ValueError, match="takes no time"):
        calibrations.obtain(key(batch=1), timers=timers(measure), storage=tmp_path)
    assert len(told) == calibrations.TRIES
    assert not calibrations.path_of(key(batch=1), storage=tmp_path).exists()


def _emptied(content: dict[str, Any]) -> None:
    content["costs"]["verify_s"] = [[1.0]]


def _renamed(content: dict[str, Any]) -> None:
    content["key"]["work"]["batch"] = 7


def _of_another_version(content: dict[str, Any]) -> None:
    content["key"]["version"] = 0


def _unknown(content: dict[str, Any]) -> None:
    content["colour"] = "red"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (None, "no whole JSON"),
        (_emptied, "3 passes of their lookahead"),
        (_renamed, "another pair"),
        (_of_another_version, "key.version"),
        (_unknown, "colour"),
    ],
)
def test_a_kept_one_that_cannot_be_read_is_refused_in_one_line_and_not_measured_over(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None] | None, problem: str
) -> None:
    calibrations.obtain(key(), timers=timers(lambda: PRICES), storage=tmp_path)
    path = calibrations.path_of(key(), storage=tmp_path)
    text = path.read_text()
    if damage:
        content = json.loads(text)
        damage(content)
        path.write_text(json.dumps(content))
    else:
        path.write_text(text[: len(text) // 2])
    measure, told = counted(PRICES)
    with pytest.raises(ConfigError, match=problem) as refusal:
        calibrations.obtain(key(), timers=timers(measure), storage=tmp_path)
    said = str(refusal.value)
    assert said.startswith(str(path))
    assert "delete it" in said
    assert "\n" not in said
    assert not told


def test_a_real_pair_is_calibrated_on_the_device_that_holds_it(
    tmp_path: Path, make_model: Callable[..., TimerXL], make_series: Callable[..., torch.Tensor]
) -> None:
    target, draft = make_model().engine(), make_model(1, n_layers=1).engine()
    windows = EvaluationWindows(make_series(), make_series())
    keys = {"target_key": "t", "draft_key": "d"}
    given: dict[str, Any] = {"lookahead": 9, "evaluation": EVALUATION, "storage": tmp_path, **keys}
    kept = calibrations.of_pair(target, draft, windows, **given)
    assert kept.key.device == Device.here(torch.device("cpu"))
    assert kept.key.work == work(lookahead=9)
    assert kept.costs.lookahead == 3
    assert kept.costs.batches == (1, 2)
    assert kept.seconds > 0
    assert calibrations.of_pair(target, draft, windows, **given) == kept
    assert [path.suffix for path in (tmp_path / "calibrations").iterdir()] == [".json"]
