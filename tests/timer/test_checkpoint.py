"""Claims about a Timer on disk: THUML's files become one, or are refused in one line; ours return.

The public checkpoint's architecture is the default one, and has exactly as many parameters as it.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foredraft import bank
from foredraft.cli import main
from speculation import ContextPolicy, InvalidInput, checkpoint, families, rollout
from timer import Timer, TimerConfig
from timer.checkpoint import import_thuml

THEIRS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generate.py"))))
CASE = THEIRS.CASES["a batch"]
LAYER = "model.layers.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory as THUML gives it: weights, configuration, and files of no interest here."""
    path = tmp_path / "timer-tiny"
    path.mkdir()
    write(path)
    (path / "modeling_timer.py").write_text("raise SystemExit('was run')")
    (path / "generation_config.json").write_text("{}")
    return path


def write(folder: Path, state: dict[str, Any] | None = None, **fields: Any) -> None:
    save_file(state or THEIRS.random_state(CASE), folder / "model.safetensors")
    told = {n: v for n, v in (CASE.config | fields).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(told))


def test_the_default_architecture_has_as_many_parameters_as_the_public_checkpoint() -> None:
    assert TimerConfig().num_parameters == 84_142_080
    with torch.device("meta"):
        model = Timer(TimerConfig())
    assert sum(weight.numel() for weight in model.parameters()) == 84_142_080


@pytest.mark.parametrize("changes", [{}, {"patches_out": 3}, {"n_layers": 1, "d_ff": 8}])
def test_parameters_are_counted_by_arithmetic(changes: dict[str, int]) -> None:
    config = TimerConfig(**({"patch": 8, "context": 32, "d_model": 16, "n_heads": 2} | changes))
    model = families.build(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.num_parameters


def test_what_was_imported_comes_back_from_our_own_files_bit_for_bit(
    folder: Path, tmp_path: Path
) -> None:
    model = import_thuml(folder, context=CASE.context)
    (tmp_path / "ours").mkdir()
    checkpoint.save(model, tmp_path / "ours")
    back = checkpoint.load(tmp_path / "ours")
    assert back.config == model.config
    context_BTC, policy = THEIRS.random_context(CASE), ContextPolicy("deployed")
    ours, theirs = (rollout(m, context_BTC, horizon=24, policy=policy) for m in (back, model))
    assert torch.equal(ours, theirs)


def test_a_directory_or_its_weights_file_may_be_named(folder: Path) -> None:
    one = import_thuml(folder, context=CASE.context)
    other = import_thuml(folder / "model.safetensors", context=CASE.context)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_of_half_precision_are_read_as_float32(folder: Path) -> None:
    write(folder, {name: x.bfloat16() for name, x in THEIRS.random_state(CASE).items()})
    model = import_thuml(folder, context=CASE.context)
    assert model.dtype == torch.float32
    theirs = THEIRS.random_state(CASE)["lm_heads.0.weight"].bfloat16().float()
    assert torch.equal(model.head.weight, theirs)


@pytest.mark.parametrize("name", sorted(THEIRS.random_state(CASE)))
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(folder: Path, name: str) -> None:
    state = THEIRS.random_state(CASE)
    write(folder, state | {name: state[name][..., :-1].contiguous()})
    with pytest.raises(InvalidInput, match=rf"safetensors: {name} has shape .*, config.json says"):
        import_thuml(folder, context=CASE.context)
    del state[name]
    write(folder, state)
    with pytest.raises(InvalidInput, match=f"model.safetensors lacks {name}, which config.json"):
        import_thuml(folder, context=CASE.context)


@pytest.mark.parametrize(
    "extra", ["lm_heads.1.weight", f"{LAYER}.self_attn.o_proj.bias", "model.layers.9.norm1.bias"]
)
def test_a_tensor_too_many_is_named(folder: Path, extra: str) -> None:
    write(folder, THEIRS.random_state(CASE) | {extra: torch.zeros(3)})
    with pytest.raises(InvalidInput, match=f"model.safetensors holds {extra}, which a Timer of"):
        import_thuml(folder, context=CASE.context)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"output_token_lens": [8, 16]}, r"output_token_lens is \[8, 16\]: .* \[8\] would do"),
        ({"output_token_lens": [16]}, r"output_token_lens is \[16\]: .* \[8\] would do"),
        ({"output_token_lens": None}, r"output_token_lens is None: .* \[8\] would do"),
        ({"input_token_len": None}, "input_token_len is missing: it must be a whole number"),
        ({"hidden_size": "16"}, "hidden_size is '16': it must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0: it must be a whole number of at least"),
        ({"hidden_size": 18, "num_attention_heads": 4}, "d_model is 18 with n_heads 4"),
        ({"model_type": "sundial"}, "model_type is 'sundial': it is another model; 'timer'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': .*; 'silu' would do"),
        ({"rope_theta": 5e5}, "rope_theta is 500000.0: .*; 10000 would do"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_file_and_field(
    folder: Path, fields: dict[str, Any], complaint: str
) -> None:
    write(folder, **fields)
    with pytest.raises(InvalidInput, match=f"config.json: {complaint}") as told:
        import_thuml(folder, context=CASE.context)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", None, "config.json does not exist: .* with config.json beside it"),
        ("config.json", "patch: 8", "config.json is no JSON"),
        ("config.json", "[8]", "config.json is no configuration: it holds no mapping"),
        ("model.safetensors", None, "model.safetensors does not exist"),
        ("model.safetensors", "weights", "model.safetensors holds no safetensors"),
    ],
)
def test_a_file_that_is_missing_or_something_else_is_named(
    folder: Path, name: str, content: str | None, complaint: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InvalidInput, match=complaint):
        import_thuml(folder, context=CASE.context)


@pytest.mark.parametrize("context", [0, 4, 36])
def test_a_look_back_that_is_no_whole_number_of_patches_is_refused(
    folder: Path, context: int
) -> None:
    with pytest.raises(InvalidInput, match="context"):
        import_thuml(folder, context=context)


def test_the_command_imports_a_target_and_says_what_it_assumed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--storage", str(tmp_path / "runs"), "--json", "--context", "32"]
    main(["import", str(folder), "--family", "timer", "--as", "target", *where])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "--context" in told["assumed"]["context"]
    assert "deployed" in told["assumed"]["policy"]
    path = bank.find(told["key"], kind="target", storage=tmp_path / "runs")
    assert bank.open_model(path).config == import_thuml(folder, context=32).config


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--family", "timer", "--activation", "gelu"], "--activation has no effect .* timer"),
        (["--family", "timer", "--no-revin"], "--no-revin has no effect .* timer"),
        (["--family", "timer", "--context", "100"], "does not divide context 100"),
        ([], "timer-tiny is a directory: .* --family timer"),
    ],
)
def test_the_command_refuses_in_one_line_what_has_no_effect_or_no_sense(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["import", str(folder), *flags])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(complaint, line), line


def test_a_scaled_draft_keeps_what_is_no_size_and_has_no_variance() -> None:
    target = TimerConfig(rope_theta=500.0)
    draft = target.scaled(0.5, patches_out=7)
    assert (draft.d_model, draft.n_heads, draft.d_ff, draft.n_layers) == (512, 4, 1024, 4)
    assert (draft.patch, draft.context, draft.rope_theta) == (96, 2880, 500.0)
    assert draft.patches_out == 7
    with pytest.raises(InvalidInput, match="variance is true: a timer has no such head"):
        target.scaled(0.5, variance=True)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"patch": 1}, "patch is 1: it must be at least 2"),
        ({"context": 100}, "patch is 96, which does not divide context 100: a context of 96"),
        ({"n_heads": 3}, "d_model is 1024 with n_heads 3"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"n_layers": 0}, "n_layers is 0"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_by_field(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        TimerConfig(**fields)
