"""A benchmark's rows say what was run, and measure what they say. How fast is not for tests."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from foredraft.cli import main
from foredraft.judge.bench import BenchPlan, Subject, bench, card, random_subject
from foredraft.judge.memory import peak_mib
from speculation import ContextPolicy
from speculation.heads import Heads, HeadsConfig
from timer_xl import TimerXL, TimerXLConfig

TINY = TimerXLConfig(patch=8, context=32, d_model=32, n_heads=4, d_ff=48, n_layers=2)
CPU = torch.device("cpu")


def subject(plan: BenchPlan, *, config: TimerXLConfig = TINY) -> Subject:
    def make(scale: float | None) -> tuple[TimerXL, TimerXL]:
        torch.manual_seed(0)
        draft = config.scaled(scale or 1.0, patches_out=plan.patches_out)
        return TimerXL(config), TimerXL(draft)

    return Subject(make, torch.randn(max(plan.batches), config.context, 3).cumsum(1))


def test_the_grid_is_every_combination_of_what_is_listed() -> None:
    plan = BenchPlan(
        batches=(1, 2), horizons=(64,), lookaheads=(2, 3), acceptances=(0.5, 1.0), pairs=6
    )
    rows = bench(plan, subject(plan), device=CPU, scales=(0.5, 0.75))
    kinds = [(row["scale"], row["batch"], row["lookahead"], row["acceptance"]) for row in rows]
    assert len(set(kinds)) == len(rows) == 2 * 2 * 2 * 2
    for row in rows:
        assert row["pairs"] == 6
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["predicted_speedup"] > 0
        assert min(row["draft_s"], row["verify_s"], row["accept_s"], row["target_s"]) > 0
        assert "reference_ratio" not in row


@pytest.mark.parametrize("policy", [ContextPolicy(), ContextPolicy("cached")])
def test_heads_propose_from_the_second_round_on_and_their_first_costs_a_step(
    policy: ContextPolicy,
) -> None:
    plan = BenchPlan(
        policy=policy,
        batches=(1, 2),
        horizons=(64,),
        lookaheads=(3,),
        acceptances=(1.0,),
        draft_kind="heads",
        patches_out=3,
        pairs=3,
    )
    given = subject(plan)._replace(make=lambda _: (TimerXL(TINY), Heads(HeadsConfig.of(TINY))))
    one, two = bench(plan, given, device=CPU, scales=(None,))
    # Of eight patches the target gives the first; the others come in rounds of four and of three.
    assert [n / 3 for n in one["accept_lengths"]] == [0, 1, 0, 1, 1]
    assert [n / 6 for n in two["accept_lengths"]] == [0, 1, 0, 1, 1]
    assert one["draft_kind"] == "heads"
    assert one["predicted_speedup"] > 0
    assert "7 heads" in card([one, two])


@pytest.mark.parametrize("policy", [ContextPolicy(), ContextPolicy("cached")])
@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_a_forced_acceptance_is_how_often_a_tested_proposal_is_accepted(
    policy: ContextPolicy, rate: float
) -> None:
    plan = BenchPlan(
        policy=policy, batches=(64,), horizons=(128,), lookaheads=(1,), acceptances=(rate,), pairs=4
    )
    (row,) = bench(plan, subject(plan), device=CPU, scales=(0.5,))
    # More than 2,000 proposals: five standard errors are below 0.06.
    assert row["acceptance_rate"] == pytest.approx(rate, abs=0.06)


def test_every_precision_is_measured_with_the_weights_that_were_given() -> None:
    """The first cell's rounding is not the second one's."""
    plan = BenchPlan(
        batches=(1,), horizons=(16,), dtypes=("bf16", "fp32"), acceptances=(1.0,), pairs=3
    )
    pair = subject(plan).make(0.5)
    before = [copy.deepcopy(model.state_dict()) for model in pair]
    given = subject(plan)._replace(make=lambda scale: pair)
    rows = bench(plan, given, device=CPU, scales=(None,))
    assert [row["dtype"] for row in rows] == ["bf16", "fp32"]
    for model, weights in zip(pair, before, strict=True):
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, weights[name]), name


def test_the_accept_lengths_are_all_that_was_emitted() -> None:
    plan = BenchPlan(batches=(3,), horizons=(80,), lookaheads=(4,), acceptances=(0.7,), pairs=5)
    (row,) = bench(plan, subject(plan), device=CPU, scales=(0.5,))
    emitted = sum(length * rounds for length, rounds in enumerate(row["accept_lengths"]))
    assert emitted == 5 * 3 * 10


def test_the_reference_loop_is_timed_on_request() -> None:
    plan = BenchPlan(
        policy=ContextPolicy(),
        batches=(2,),
        horizons=(24,),
        acceptances=(1.0,),
        pairs=6,
        reference=True,
    )
    (row,) = bench(plan, subject(plan), device=CPU, scales=(0.5,))
    assert row["reference_low"] <= row["reference_ratio"] <= row["reference_high"]


def test_the_card_has_a_line_per_row() -> None:
    plan = BenchPlan(batches=(1, 2), horizons=(32,), acceptances=(1.0,), pairs=3)
    rows = bench(plan, subject(plan), device=CPU, scales=(0.5,))
    header, rule, *lines = card(rows).splitlines()
    assert len(lines) == len(rows)
    assert len({line.count("|") for line in (header, rule, *lines)}) == 1
    assert all("x (3 pairs) |" in line for line in lines)


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    def run() -> None:
        for _ in range(5):
            torch.zeros(2**18).sum()  # 1 MiB, gone before the next
        kept = [torch.ones(2**18) for _ in range(3)]
        torch.stack(kept)

    assert peak_mib(run, CPU) == pytest.approx(6, abs=0.1)


def test_a_benchmark_imports_no_ray_and_ends_in_one_line_of_json(tmp_path) -> None:
    from foredraft import bank

    torch.manual_seed(0)
    storage = tmp_path / "runs"
    paths = [
        bank.add(TimerXL(config), kind=kind, storage=storage, source=tmp_path)
        for kind, config in (("target", TINY), ("draft", TINY.scaled(0.5, patches_out=2)))
    ]
    script = (
        "import sys; from foredraft.cli import main; main(sys.argv[1:]); "
        "assert 'ray' not in sys.modules, 'ray was imported'"
    )
    arguments = ["bench", "--storage", str(storage), "--data", "synthetic-etth:rows=600"]
    arguments += ["--target", str(paths[0]), "--draft", str(paths[1]), "--pairs", "3"]
    arguments += ["--batch", "1", "--horizon", "32", "--lookahead", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["versions"]["torch"] == torch.__version__
    assert [row["batch"] for row in result["results"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "t1"], "random-weights"),
        (["--preset", "t1", "--random-weights"], "force-acceptance"),
        (["--preset", "t1", "--random-weights", "--force-acceptance", "1.5"], "1.5"),
        (["--preset", "t1", "--random-weights", "--force-acceptance", "1", "--dtype", "f8"], "f8"),
        ([], "preset"),
    ],
)
def test_a_benchmark_that_cannot_be_run_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


def test_another_seed_times_other_weights_on_other_series() -> None:
    first, again, other = (
        random_subject("t1", BenchPlan(batches=(1,), seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.contexts_WTC, again.contexts_WTC)
    assert not torch.equal(first.contexts_WTC, other.contexts_WTC)
    weights = [subject.make(0.5)[1].embedding.weight for subject in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
