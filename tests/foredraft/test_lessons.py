"""Claims about lessons: how data sets mix, how workers share, what a target teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foredraft import data
from foredraft.config import Stage
from foredraft.train import teacher
from foredraft.train.lessons import Lessons, Teacher
from timer_xl import ContextPolicy, Normalisation, TimerXL, TimerXLConfig, rollout

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
    model = settings.pop("model", MODEL)
    made = lessons(taught=Teacher(target, "a target", "mine"), model=model, **settings)  # type: ignore[arg-type]
    return made, target


def test_data_sets_are_mixed_by_their_weights_whatever_their_sizes() -> None:
    mixed = lessons(data={NARROW: 3, WIDE: 1}, variates=2)
    draws = list(mixed.epoch(0, batch=8, drawn=320))
    assert len(draws) == 40
    assert [sum(draw.source == source for draw in draws) for source in (0, 1)] == [30, 10]


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


def test_answers_that_do_not_fit_are_refused_before_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = teacher.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(teacher.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ValueError, match="set `windows` of the distill stage"):
        distilled()
