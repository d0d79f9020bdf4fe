"""Claims about `import`: it says what it assumed, and refuses what it cannot forecast with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from foredraft.cli import main
from speculation.checkpoint import load
from timer_xl import TimerXL, TimerXLConfig


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A one-layer Timer-XL under the names of OpenLTM."""
    config = TimerXLConfig(patch=6, context=24, d_model=16, n_heads=2, d_ff=20)
    state = TimerXL(config).state_dict()
    theirs = {name: state[name] for name in ("embedding.weight", "embedding.bias")}
    block = "blocks.attn_layers.0"
    renamed = {
        "norm": "blocks.norm",
        "head": "head",
        "blocks.0.attention.out": f"{block}.attention.out_projection",
        "blocks.0.norm_attention": f"{block}.norm1",
        "blocks.0.norm_feed_forward": f"{block}.norm2",
        "blocks.0.widen": f"{block}.conv1",
        "blocks.0.narrow": f"{block}.conv2",
    }
    for suffix in ("weight", "bias"):
        theirs |= {f"{their}.{suffix}": state[f"{our}.{suffix}"] for our, their in renamed.items()}
        qkv = state[f"blocks.0.attention.qkv.{suffix}"].chunk(3)
        parts = zip(("query", "key", "value"), qkv, strict=True)
        theirs |= {f"{block}.attention.{name}_projection.{suffix}": part for name, part in parts}
    bias = f"{block}.attention.inner_attention.attn_bias.emb.weight"
    theirs[bias] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.save(theirs, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def imported(capsys: pytest.CaptureFixture[str], checkpoint: Path, *flags: str) -> dict[str, str]:
    storage = str(checkpoint.parent / "runs")
    main(["import", str(checkpoint), "--context", "24", "--storage", storage, "--json", *flags])
    result: dict[str, str] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_what_the_weights_do_not_tell_is_said_with_the_flag_that_changes_it(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    assumed = imported(capsys, checkpoint)["assumed"]
    for flag in ("--context", "--activation", "--no-revin", "--flash-attention", "--covariate"):
        assert sum(flag in line for line in assumed.values()) == 1, flag  # type: ignore[attr-defined]


def test_what_is_said_of_a_checkpoint_is_what_the_model_becomes(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    plain = imported(capsys, checkpoint)
    other = imported(capsys, checkpoint, "--no-revin", "--flash-attention", "--activation", "gelu")
    assert plain["key"] != other["key"]
    assert plain["assumed"] != other["assumed"]
    before, after = load(Path(plain["path"])), load(Path(other["path"]))
    assert (before.config.revin, before.config.activation) == (True, "relu")
    assert (after.config.revin, after.config.activation) == (False, "gelu")
    # Two heads of width 8: the bias is divided by sqrt(8) with the scores, theirs was not.
    before_2H, after_2H = (
        model.state_dict()["blocks.0.attention.bias_2H"] for model in (before, after)
    )
    assert torch.allclose(after_2H, before_2H * 8**0.5)


def test_a_model_trained_with_covariates_is_refused_in_one_line_with_the_reason(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["import", str(checkpoint), "--covariate"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "checkpoint.pth" in line
    assert "mask" in line
