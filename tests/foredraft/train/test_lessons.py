"""Claims about lessons: how data sets mix, how workers share, what a target teaches.

A set of little weight has its share over the epochs; a distillation is judged in every kind of
context that it learns from, whatever the batch; a target that runs away teaches nothing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from foredraft import data
from foredraft.errors import ConfigError
from foredraft.settings.config import Stage
from foredraft.train import teacher
from foredraft.train.lessons import Lessons, Teacher, shared_out
from speculation import ContextPolicy, rollout
from speculation.normalisation import Normalisation
from timer_xl import TimerXL, TimerXLConfig

NARROW, WIDE = "synthetic-etth:rows=1200", "synthetic-load:rows=1200,variates=9"
MODEL = TimerXLConfig(patch=12, context=48, d_model=16, n_heads=2, d_ff=32, dropout=0.0)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def lessons(
    *,
    split: str = "train",
    model: TimerXLConfig = MODEL,
    taught: Teacher | None = None,
    **stage: object,
) -> Lessons:
    settings = {"name": "pretrain", "data": NARROW} | stage
    made = Stage.model_validate(settings)
    sets = {name: data.load(name) for name in made.sources}
    return Lessons(made, model, sets, split=split, seed=3, taught=taught)


def distilled(**stage: object) -> tuple[Lessons, TimerXL]:
    torch.manual_seed(0)
    target = TimerXL(MODEL).eval()
    settings = {"name": "distill", "rollouts": 3, "windows": 70} | stage
    given = {"model": MODEL, "split": "train"}
    given |= {name: settings.pop(name) for name in ("model", "split") if name in settings}
    taught = Teacher(target, "a target", "mine")
    made = lessons(taught=taught, **given, **settings)  # type: ignore[arg-type]
    return made, target


def test_data_sets_are_mixed_by_their_weights_whatever_their_sizes() -> None:
    mixed = lessons(data={NARROW: 3, WIDE: 1}, variates=2)
    draws = list(mixed.epoch(0, batch=8, drawn=320))
    assert len(draws) == 40
    assert [sum(draw.source == source for draw in draws) for source in (0, 1)] == [30, 10]


def steps_of(mixed: Lessons, epochs: int, *, batch: int, drawn: int) -> list[Counter[int]]:
    return [
        Counter(draw.source for draw in mixed.epoch(number, batch=batch, drawn=drawn))
        for number in range(epochs)
    ]


def test_a_set_that_is_worth_less_than_a_step_an_epoch_has_its_share_over_the_epochs() -> None:
    mixed = lessons(data={NARROW: 1, WIDE: 500}, variates=2)
    epochs = steps_of(mixed, 10, batch=1, drawn=200)
    assert all(sum(steps.values()) == 200 for steps in epochs)
    # 2,000 steps, of which one in 501.
    assert [steps[0] for steps in epochs] == [1, 0, 1, 0, 0, 1, 0, 1, 0, 0]


def test_every_set_is_learnt_from_however_short_its_stage() -> None:
    mixed = lessons(data={NARROW: 1, WIDE: 500}, variates=2)
    assert steps_of(mixed, 1, batch=8, drawn=16) == [Counter({0: 1, 1: 1})]


def test_the_share_of_an_epoch_does_not_hang_on_those_that_were_drawn_before_it() -> None:
    mixed, resumed = (lessons(data={NARROW: 1, WIDE: 9}, variates=2) for _ in range(2))
    whole = steps_of(mixed, 4, batch=8, drawn=56)
    assert Counter(draw.source for draw in resumed.epoch(3, batch=8, drawn=56)) == whole[3]


@pytest.mark.parametrize("weights", [[1.0], [3.0, 1.0], [1.0, 500.0], [0.2, 0.3, 0.5], [1, 1, 1]])
def test_turns_are_shared_out_by_weight_and_never_taken_back(weights: list[float]) -> None:
    before = [0] * len(weights)
    for count in range(60):
        now = shared_out(weights, count).tolist()
        assert sum(now) == count
        for had, has, weight in zip(before, now, weights, strict=True):
            assert had <= has <= had + 1
            assert abs(has - count * weight / sum(weights)) < len(weights)
        before = now


def test_batches_of_data_sets_of_different_widths_have_the_variates_that_were_asked_for() -> None:
    mixed = lessons(data={NARROW: 1, WIDE: 1}, variates=2)
    for draw in mixed.epoch(0, batch=8, drawn=64):
        assert mixed.lesson(draw, device=CPU).x_BNCP.shape == (8, 4, 2, 12)


def test_a_univariate_stage_draws_another_variate_for_every_window() -> None:
    draws = list(lessons(data=WIDE, variates=1).epoch(0, batch=32, drawn=320))
    drawn = torch.cat([draw.variates_BV for draw in draws if draw.variates_BV is not None])
    assert drawn.shape == (320, 1)
    assert len(drawn.unique()) == 9


def test_no_window_is_drawn_twice_before_every_window_was_drawn_once() -> None:
    alone = lessons()
    drawn = torch.cat([draw.index_B for draw in alone.epoch(0, batch=8, drawn=len(alone))])
    assert len(drawn.unique()) == len(drawn) > 8 * (len(alone) // 8) - 1


def test_two_epochs_draw_in_different_orders_and_one_epoch_always_in_the_same() -> None:
    alone = lessons()
    first, again, second = (
        torch.cat([draw.index_B for draw in alone.epoch(number, batch=8, drawn=64)])
        for number in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_workers_share_each_batch_without_overlap() -> None:
    for draw in lessons(data=WIDE, variates=2).epoch(0, batch=8, drawn=64):
        first, second = draw.parts(2)
        assert torch.equal(torch.cat((first.index_B, second.index_B)), draw.index_B)
        assert draw.variates_BV is not None
        assert second.variates_BV is not None
        assert torch.equal(second.variates_BV, draw.variates_BV[4:])
        assert len(draw.index_B.unique()) == 8


def test_what_follows_a_patch_is_the_next_patch_of_the_data() -> None:
    alone = lessons()
    draw = next(alone.epoch(0, batch=4, drawn=64))
    lesson = alone.lesson(draw, device=CPU)
    torch.testing.assert_close(lesson.y_BMCQ[:, :-1], lesson.x_BNCP[:, 1:])


def test_a_validation_is_the_same_at_every_epoch() -> None:
    exam = lessons(split="validation", data=WIDE, variates=2, validation_windows=20)
    first, again = (list(exam.every_window(batch=8)) for _ in range(2))
    assert sum(len(draw.index_B) for draw in first) == 20
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(
            exam.lesson(one, device=CPU).x_BNCP, exam.lesson(other, device=CPU).x_BNCP
        )


def judged(exam: Lessons, *, batch: int) -> Counter[tuple[int, int, int | None]]:
    """Data set, window and patches of the rollout that have passed."""
    return Counter(
        (draw.source, window, draw.ahead)
        for draw in exam.every_window(batch=batch)
        for window in draw.index_B.tolist()
    )


def test_a_distillation_is_judged_alike_whatever_the_batch() -> None:
    exam, _ = distilled(split="validation", validation_windows=60)
    whole = judged(exam, batch=60)
    assert len(whole) == sum(whole.values()) == 60
    for batch in (1, 7, 64):
        assert judged(exam, batch=batch) == whole
        assert max(len(draw.index_B) for draw in exam.every_window(batch=batch)) <= batch


@pytest.mark.parametrize(
    ("rolled", "patches_out", "wanted"),
    [
        (0.5, 1, {None: 30, 0: 10, 1: 10, 2: 10}),
        (0.25, 1, {None: 45, 0: 5, 1: 5, 2: 5}),
        (0.0, 1, {None: 60}),
        (1.0, 1, {0: 20, 1: 20, 2: 20}),
        # A one-pass head learns no prefixes, but more of the window itself.
        (0.5, 2, {0: 40, 1: 10, 2: 10}),
    ],
)
def test_a_distillation_is_judged_in_what_it_learns_from_and_as_often(
    rolled: float, patches_out: int, wanted: dict[int | None, int]
) -> None:
    model = MODEL.scaled(1.0, patches_out=patches_out)
    exam, _ = distilled(split="validation", validation_windows=60, rolled=rolled, model=model)
    assert Counter(ahead for _, _, ahead in judged(exam, batch=8)) == wanted
    learnt = Counter(draw.ahead for draw in exam.epoch(0, batch=1, drawn=1200))
    for ahead, count in wanted.items():
        assert learnt[ahead] / 1200 == pytest.approx(count / 60, abs=0.05)
    assert set(learnt) == set(wanted)


def test_every_kind_of_context_is_judged_all_over_the_validation_split() -> None:
    exam, _ = distilled(split="validation", validation_windows=60)
    for ahead in (None, 0, 1, 2):
        places = [window for _, window, kind in judged(exam, batch=8) if kind == ahead]
        assert min(places) < 20
        assert max(places) >= 40


def test_fewer_windows_than_kinds_of_context_judge_in_as_many_of_them() -> None:
    for count in (1, 3):
        exam, _ = distilled(split="validation", validation_windows=count)
        draws = list(exam.every_window(batch=8))
        assert [len(draw.index_B) for draw in draws] == [1] * count
        assert len({draw.ahead for draw in draws}) == count


def test_what_is_observed_is_judged_in_windows_in_order() -> None:
    exam = lessons(split="validation", validation_windows=20)
    read = torch.cat([draw.index_B for draw in exam.every_window(batch=8)])
    assert read.tolist() == list(range(20))
    assert {draw.ahead for draw in exam.every_window(batch=8)} == {None}


@pytest.mark.parametrize(
    "policy", [ContextPolicy(), ContextPolicy("cached"), ContextPolicy("cached", 2)]
)
@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_draft_learns_what_the_target_says_in_the_contexts_of_its_own_rollout(
    policy: ContextPolicy, ahead: int
) -> None:
    made, target = distilled(policy=policy)
    draw = next(made.epoch(0, batch=5, drawn=64))._replace(ahead=ahead)
    lesson = made.lesson(draw, device=CPU)
    with torch.no_grad():
        said = target(lesson.x_BNCP, last=1).mean
    # The answers are kept as float16.
    torch.testing.assert_close(lesson.y_BMCQ, said, atol=5e-3, rtol=5e-3)


def test_a_draft_learns_what_the_target_says_after_every_prefix() -> None:
    made, target = distilled()
    draw = next(made.epoch(0, batch=5, drawn=64))._replace(ahead=None)
    lesson = made.lesson(draw, device=CPU)
    with torch.no_grad():
        said = target(lesson.x_BNCP).mean
    torch.testing.assert_close(lesson.y_BMCQ, said, atol=5e-3, rtol=5e-3)


def test_a_one_pass_head_learns_the_rollout_from_where_it_stands() -> None:
    model = MODEL.scaled(1.0, patches_out=3)
    made, target = distilled(model=model)
    draw = next(made.epoch(0, batch=5, drawn=64))._replace(ahead=1)
    lesson = made.lesson(draw, device=CPU)
    window_BTC = made.sources[0].windows.batch(draw.index_B)[:, :48]
    rolled = rollout(target, window_BTC, horizon=48).unflatten(1, (4, 12)).transpose(2, 3)
    history = torch.cat((window_BTC.unflatten(1, (4, 12)).transpose(2, 3), rolled[:, :1]), 1)
    next_BKCP = Normalisation.of(history[:, 1:]).apply(rolled[:, 1:])
    torch.testing.assert_close(
        lesson.y_BMCQ[:, 0], next_BKCP.transpose(1, 2).flatten(2), atol=5e-3, rtol=5e-3
    )


def test_a_target_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    distilled()
    said = capsys.readouterr().err
    assert said.startswith("asking the target about 70 windows: 0 MB in ")
    distilled()
    assert capsys.readouterr().err == ""


def test_another_target_is_asked_anew(capsys: pytest.CaptureFixture[str]) -> None:
    distilled()
    torch.manual_seed(1)
    lessons(
        taught=Teacher(TimerXL(MODEL).eval(), "another", "other"),
        name="distill",
        rollouts=3,
        windows=70,
    )
    assert capsys.readouterr().err.count("asking the target") == 2


@pytest.mark.parametrize("size", [float("nan"), float("inf"), 1e5])
def test_a_target_that_runs_away_is_refused_by_its_name_with_the_data_and_the_window(
    size: float, tmp_path: Path
) -> None:
    target = TimerXL(MODEL).eval()
    with torch.no_grad():
        target.head.bias.fill_(size)
    with pytest.raises(ConfigError) as refused:
        lessons(taught=Teacher(target, "mad", "runs/targets/mad"), name="distill", windows=70)
    told = str(refused.value)
    assert "\n" not in told
    assert f"target runs/targets/mad about {NARROW}" in told
    assert "the window from row 0 run away" in told
    assert not list((tmp_path / "cache").rglob("answers.npy")), "they were kept"


def test_the_window_in_which_a_target_runs_away_is_the_one_that_is_named(
    tmp_path: Path,
) -> None:
    dataset = data.load(NARROW)
    values_TC = dataset.standardised()[:200].clone()
    # The context from row 110 is the first that reaches what is no number.
    values_TC[150:] = torch.nan
    starts_W = torch.arange(0, 120, 10)
    asking = teacher.Asking("digest", ahead=1, policy=ContextPolicy())
    windows = data.Windows(values_TC, starts_W, 60)
    with pytest.raises(ConfigError, match="the window from row 110 run away"):
        teacher.ask(
            TimerXL(MODEL).eval(),
            windows,
            variates_WV=None,
            source="digest",
            asking=asking,
            about="target mine about mine",
        )


def test_kept_answers_are_off_by_at_most_a_two_thousandth_of_themselves() -> None:
    made, target = distilled()
    index_B = torch.arange(5)
    kept_BFCP = made.sources[0].answers.patches(index_B)  # type: ignore[union-attr]
    with torch.no_grad():
        context_BTC = made.sources[0].windows.batch(index_B)[:, :48]
        x_BNCP = context_BTC.unflatten(1, (-1, 12)).transpose(2, 3)
        said_BNCP = target(Normalisation.of(x_BNCP).apply(x_BNCP)).mean
    off = (kept_BFCP[:, :3] - said_BNCP[:, :3]).abs()
    assert bool((off <= said_BNCP[:, :3].abs() / 2048 + 1e-5).all())
    assert kept_BFCP.dtype == torch.float32


def test_answers_that_do_not_fit_are_refused_before_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = teacher.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(teacher.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ValueError, match="set `windows` of the stage lower"):
        distilled()


def test_the_set_that_judges_is_not_the_only_one_that_is_learnt_from() -> None:
    both = {NARROW: 1.0, WIDE: 1.0}
    assert lessons(data=both, judge=WIDE, variates=2).names == (NARROW, WIDE)
    assert lessons(data=both, judge=WIDE, variates=2, split="validation").names == (WIDE,)


def test_answers_that_run_away_in_part_are_refused() -> None:
    answers_BFCP = torch.ones(3, 2, 1, 4).half()
    teacher.refuse_endless(answers_BFCP, torch.tensor([5, 6, 7]), about="mine")
    answers_BFCP[1, 1, 0, 3] = float("inf")
    with pytest.raises(ConfigError, match=r"mine: .* the window from row 6 run away"):
        teacher.refuse_endless(answers_BFCP, torch.tensor([5, 6, 7]), about="mine")
