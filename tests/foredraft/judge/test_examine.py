"""Claims about what a draft is examined on: validation rows, on any split that trains it.

The figures are those of the strict rule over contexts before the validation split's own rows.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from foredraft import bank, data, train
from foredraft.judge import evaluate
from foredraft.judge.evaluate import EvaluationWindows
from foredraft.judge.examine import Examiner, default_rule
from foredraft.settings.config import Machine, Stage, Training
from speculation import ContextPolicy, checkpoint
from speculation.heads import HeadsConfig
from timer_xl import TimerXL, TimerXLConfig

DATA = "synthetic-etth:rows=600"
MODEL = TimerXLConfig(patch=8, context=32, d_model=16, n_heads=2, d_ff=32, n_layers=1)
ALONE = Machine(cpus=1, use_gpu=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stage(**changes: object) -> Stage:
    settings = {"name": "scratch", "data": DATA, "epochs": 1, "windows_per_epoch": 32, "lr": 1e-3}
    return Stage.model_validate(settings | changes)


def target_in(tmp_path: Path) -> Path:
    """A target of random weights: it answers, and that is all that is asked of it here."""
    torch.manual_seed(3)
    (tmp_path / "target").mkdir()
    checkpoint.save(TimerXL(MODEL).eval(), tmp_path / "target")
    return tmp_path / "target"


def near(target: Path, *, by: float) -> TimerXL:
    """A draft whose weights are those of the target but for a little noise."""
    torch.manual_seed(4)
    draft = checkpoint.load(target)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter += by * torch.randn_like(parameter)
    return draft.eval()


def draft_training(target: Path, *stages: Stage, patches_out: int = 1) -> Training:
    model = MODEL.scaled(1.0, patches_out=patches_out)
    return Training(model=model, stages=stages or (stage(),), target=str(target), dtype="fp32")


def contexts_of(split: str, *, windows: int) -> torch.Tensor:
    """The contexts before evenly spaced rows of a split, standardised by hand."""
    dataset = data.load(DATA)
    learnt_TC = dataset.values_TC[slice(*dataset.splits["train"])].astype(np.float64)
    values_TC = (dataset.values_TC - learnt_TC.mean(axis=0)) / learnt_TC.std(axis=0)
    first, end = dataset.splits[split]
    spaced = np.linspace(first, end - MODEL.patch, windows).astype(int)
    return torch.from_numpy(np.stack([values_TC[row - 32 : row] for row in spaced])).float()


def test_a_draft_is_accepted_as_often_as_its_proposals_after_validation_rows_are(
    tmp_path: Path,
) -> None:
    path = target_in(tmp_path)
    examiner = Examiner(draft_training(path), path)
    told = examiner(near(path, by=0.02))
    target, draft = (
        evaluate.ready(model, examiner.evaluation, torch.device("cpu"))
        for model in (checkpoint.load(path), near(path, by=0.02))
    )

    def judged(split: str) -> evaluate.PairRow:
        context_WTC = contexts_of(split, windows=32)
        windows = EvaluationWindows(context_WTC, torch.zeros(32, 64, context_WTC.shape[2]))
        alone_WHC = evaluate.forecast_alone(target, windows, evaluation=examiner.evaluation)
        return evaluate.judge_pair(
            target,
            draft,
            default_rule(draft.config),
            windows,
            evaluation=examiner.evaluation,
            alone_WHC=alone_WHC,
        )

    wanted = judged("validation")
    assert 0 < wanted.acceptance_rate < 1
    assert told["acceptance_rate"] == pytest.approx(wanted.acceptance_rate)
    assert told["accept_length"] == pytest.approx(wanted.accept_length)
    assert told["predicted_speedup"] > 0
    assert judged("test").accept_length != pytest.approx(wanted.accept_length)


def test_a_copy_of_the_target_is_accepted_whole_eight_patches_ahead(tmp_path: Path) -> None:
    path = target_in(tmp_path)
    told = Examiner(draft_training(path), path)(checkpoint.load(path))
    # A round of four proposals and the target's own, then what is left: 8 patches in 2 rounds.
    assert (told["acceptance_rate"], told["accept_length"]) == (1.0, 4.0)


@pytest.mark.parametrize("patches_out", [1, 2])
def test_a_draft_is_examined_on_the_shortest_split_that_it_can_be_trained_on(
    tmp_path: Path, patches_out: int
) -> None:
    path = target_in(tmp_path)
    # A tenth of the rows judges: just what the model emits.
    short = stage(data=f"synthetic-etth:rows={80 * patches_out}", epochs=2)
    wanted = draft_training(path, short, patches_out=patches_out)
    draft = bank.obtain(
        wanted, kind="draft", storage=tmp_path, machine=ALONE, examine=Examiner.of(wanted)
    )
    metrics = bank.open_model(draft).metrics
    assert len(metrics["curve"]) == 2
    for row in metrics["curve"]:
        assert 0 <= row["acceptance_rate"] <= 1
        assert row["accept_length"] >= 1
        assert row["predicted_speedup"] > 0


def test_a_draft_is_examined_on_what_judges_its_last_stage(tmp_path: Path) -> None:
    policy = ContextPolicy("cached")
    last = stage(
        name="distill",
        data={"synthetic-load:rows=600,variates=7": 1, DATA: 1},
        judge=DATA,
        policy=policy,
        missing="interpolate",
    )
    examiner = Examiner.of(draft_training(tmp_path, stage(data="elsewhere.csv"), last))
    assert examiner is not None
    evaluation = examiner.evaluation
    assert (evaluation.data, evaluation.split) == (DATA, "validation")
    assert (evaluation.policy, evaluation.missing) == (policy, "interpolate")
    assert Examiner.of(Training(model=MODEL, stages=(stage(),))) is None


def test_the_strict_rule_proposes_what_a_pass_emits_and_four_at_least() -> None:
    drafts = [MODEL.scaled(1.0, patches_out=patches) for patches in (1, 4, 7)]
    assert [default_rule(draft).lookahead for draft in drafts] == [4, 4, 7]
    assert default_rule(HeadsConfig.of(MODEL, patches_out=3)).lookahead == 3
    assert default_rule(MODEL).mse_tol == 0.01


def test_an_examiner_travels_to_a_worker_without_what_it_opened(tmp_path: Path) -> None:
    path = target_in(tmp_path)
    examiner = Examiner(draft_training(path), path)
    draft = checkpoint.load(path)
    before = examiner(draft)
    again = pickle.loads(pickle.dumps(Examiner(examiner.training, path)))
    assert len(pickle.dumps(examiner)) < 10_000
    assert again.evaluation == examiner.evaluation
    assert examiner(draft)["accept_length"] == before["accept_length"]


def test_an_epochs_row_holds_what_the_draft_is_worth_by_then(tmp_path: Path) -> None:
    path = target_in(tmp_path)
    wanted = draft_training(path, stage(epochs=2))
    examined: list[float] = []
    examiner = Examiner(wanted, path)

    def examine(draft: TimerXL) -> train.Row:
        row = examiner(draft)
        examined.append(row["accept_length"])
        return row

    curve = train.train(wanted, run=train.LocalRun(tmp_path / "run"), examine=examine).curve
    assert [row["accept_length"] for row in curve] == examined
    assert all(set(train.EXAMINED) <= row.keys() for row in curve)
