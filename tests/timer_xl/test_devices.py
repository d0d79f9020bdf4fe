"""Claims about accelerators, told on a pretended one: no tensor lies on the wrong device.

Whatever is made there is a fake tensor, of a shape and a device and no values; places stay on the
host, as they are. So every pass can be walked without an accelerator, samples unequally far among
them, and what would wait for it is seen: a forecast of one model waits for nothing, a round of
speculation once, for how many patches were accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from speculation import ContextPolicy, Gaussian, Lossless, Tolerance, rollout, speculate
from speculation.decode import Pair
from timer_xl import Engine, TimerXL, TimerXLConfig

aten = torch.ops.aten
# Of the kinds of device that a build for CPUs alone knows, one on which nothing is.
DEVICE = torch.device("lazy:0")
BATCH, VARIATES, PATCHES = 3, 2, 5

RULES = {
    "tolerance": Tolerance(mse_tol=0.1, lookahead=2),
    "by variate": Tolerance(mse_tol=0.1, lookahead=2, scope="variate", quorum=0.5, emit="draft"),
    "gaussian": Gaussian(sigma=0.5, bias=2.0, lookahead=2),
    "lossless": Lossless(sigma=0.5, lookahead=2),
    "forced": Tolerance(mse_tol=0.1, lookahead=2, forced=0.5),
}
POLICIES = {
    "sliding": ContextPolicy(),
    "cached": ContextPolicy("cached"),
    "cached, anchored": ContextPolicy("cached", 3),
}


class PretendedDevice(TorchDispatchMode):
    """Tensors on `DEVICE` are fake; those on the host are real, and may only be copied there."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode()
        self.waits = 0
        self.limit_B = torch.zeros(0, dtype=torch.int64)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        fakes = [x for x in tensors if isinstance(x, FakeTensor)]
        there = kwargs.get("device")
        if not fakes and there != DEVICE:
            return func(*args, **kwargs)
        if func is aten._to_copy.default and there == torch.device("cpu"):
            self.waits += 1
            return self._accepted(args[0])
        assert func is not aten._local_scalar_dense.default, "the host asks for a number"
        hosts = [x for x in tensors if not isinstance(x, FakeTensor) and x.ndim]
        if hosts:
            assert func is aten._to_copy.default, f"{func} takes a tensor that is on the host"
            assert kwargs.get("non_blocking"), "the host waits for a copy"
        args, kwargs = tree_map(self._faked, (args, kwargs))
        with self.fake:
            return func(*args, **kwargs)

    def _faked(self, x: Any) -> Any:
        real = isinstance(x, Tensor) and not isinstance(x, FakeTensor)
        return self.fake.from_tensor(x) if real else x

    def _accepted(self, accepted_B: Tensor) -> Tensor:
        """What the host learns of a round: samples accept unequally many, none beyond its limit."""
        assert accepted_B.shape == self.limit_B.shape
        assert accepted_B.dtype == torch.int64
        return torch.minimum(torch.arange(len(self.limit_B)) % 3, self.limit_B)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> PretendedDevice:
    device, accept = PretendedDevice(), Pair.accept

    def limited(self: Pair, *args: Any, limit_B: Tensor) -> Tensor:
        device.limit_B = limit_B
        return accept(self, *args, limit_B=limit_B)

    monkeypatch.setattr(Pair, "accept", limited)
    return device


def a_model(**changes: Any) -> TimerXL:
    settings = {"patch": 8, "context": 32, "d_model": 16, "n_heads": 2, "d_ff": 16, "n_layers": 2}
    with torch.device(DEVICE):
        return TimerXL(TimerXLConfig(**(settings | changes))).eval()


def itself(model: TimerXL) -> TimerXL:
    return model


def some_context() -> Tensor:
    return torch.empty(BATCH, 32, VARIATES, device=DEVICE)


ways = pytest.mark.parametrize("way", [itself, Engine])
layers = pytest.mark.parametrize("n_layers", [1, 2])
policies = pytest.mark.parametrize("policy", POLICIES)


@ways
@layers
@policies
def test_a_forecast_of_one_model_waits_for_nothing(
    pretended: PretendedDevice, way: Callable[..., Any], n_layers: int, policy: str
) -> None:
    with pretended:
        model = way(a_model(n_layers=n_layers))
        forecast = rollout(model, some_context(), horizon=8 * PATCHES - 3, policy=POLICIES[policy])
    assert forecast.device == DEVICE
    assert forecast.shape == (BATCH, 8 * PATCHES - 3, VARIATES)
    assert pretended.waits == 0


def refuse_second_wait(
    pretended: PretendedDevice, target: Any, draft: Any, *, rule: str, policy: str
) -> None:
    """Nothing; fails where a speculation waits more than once a round, or mixes devices."""
    told = speculate(
        target,
        draft,
        some_context(),
        horizon=8 * PATCHES - 3,
        acceptance=RULES[rule],
        policy=POLICIES[policy],
    )
    assert told.forecast_BTC.device == DEVICE
    assert told.forecast_BTC.shape == (BATCH, 8 * PATCHES - 3, VARIATES)
    assert len(set(told.accept_lengths.nonzero().flatten().tolist())) > 1, "unequally far"
    assert pretended.waits == told.passes


@ways
@layers
@policies
def test_a_round_waits_once_for_how_many_patches_were_accepted(
    pretended: PretendedDevice, way: Callable[..., Any], n_layers: int, policy: str
) -> None:
    with pretended:
        target, draft = (way(a_model(n_layers=n_layers, patches_out=count)) for count in (1, 2))
        refuse_second_wait(pretended, target, draft, rule="tolerance", policy=policy)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"tolerance"}))
def test_no_rule_waits_a_second_time(pretended: PretendedDevice, rule: str) -> None:
    """But for samples of two variances that differ, which are drawn until one is kept."""
    with pretended:
        target, draft = a_model(n_layers=1), a_model(n_layers=1)
        refuse_second_wait(pretended, target, draft, rule=rule, policy="cached")


def test_a_model_elsewhere_than_on_a_cpu_decodes_by_its_own_forward(
    pretended: PretendedDevice,
) -> None:
    with pretended:
        model = a_model()
    assert model.engine() is model


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda x: x[torch.tensor([0, 1])], "takes a tensor that is on the host"),
        (lambda x: torch.tensor([1.0, 2.0]).to(DEVICE), "the host waits for a copy"),
        (lambda x: bool(x.sum() > 0), "the host asks for a number"),
    ],
)
def test_the_pretended_device_sees_what_these_tests_look_for(
    pretended: PretendedDevice, mistake: Callable[[Tensor], object], said: str
) -> None:
    with pretended, pytest.raises(AssertionError, match=said):
        mistake(torch.empty(2, 3, device=DEVICE))
