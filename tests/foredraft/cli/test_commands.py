"""Claims about the commands: what README, help and docstrings show is what runs.

- Every verb and every action ends with exit code 0, prints for a person, and prints JSON.
- Every command that is shown anywhere ends with exit code 0, made small; or is parsed, and the
  reason why it cannot be run here is written down.
- A reader who leaves early, and a question for the version, are no errors.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from foredraft import data
from foredraft.cli.command import Command, main, parsed
from foredraft.judge import bench, timing
from foredraft.settings import ladders
from foredraft.settings.config import Evaluation, Stage
from foredraft.settings.study import read_study
from timer_xl import TimerXLConfig

ROOT = Path(__file__).parents[3]
TINY = TimerXLConfig(patch=12, context=48, d_model=32, n_heads=4, d_ff=32, n_layers=2)

# What is shown, and what stands for it here. Keys and data are what the fixture made.
STANDS_FOR = {
    "ETTh1": "small.csv",
    "eia930": "wide.csv",
    "electricity": "other.csv",
    "my.csv": "small.csv",
    "load.csv": "small.csv",
    "checkpoint.pth": "checkpoint.pth",
    "search_spaces/demo.yaml": "mine.yaml",
    "search_spaces/etth1.yaml": "mine.yaml",
    "STUDY": "mine.yaml",
    "joint": "mine",
    "demo": "mine",
    "etth1": "mine",
    "runs/studies/etth1/best.json": "runs/studies/mine/best.json",
    "runs/studies/demo/best.json": "runs/studies/mine/best.json",
    "/mnt/team": "team",
    "/mnt/foredraft": "shared",
    "NAME": "mine",
    "model.d_model=1024": "model.d_model=64",
    "stages.0.epochs=5": "stages.0.epochs=2",
}
# What makes a command small. A flag that is shown with another value gets this one.
SMALLER = {
    "search": ["--trials", "2"],
    "evaluate": ["--horizon", "60", "--windows", "2", "--pairs", "2"],
    "bench": [
        *("--batch", "1", "--horizon", "60", "--lookahead", "2"),
        *("--pairs", "2", "--seconds", "1"),
    ],
    "bench --preset": ["--scale", "0.5", "--patches-out", "2"],
    "progression": ["--windows", "2"],
    "forecast": ["--horizon", "30"],
}
SMALLER_STAGE = {"epochs": 1, "windows_per_epoch": 32, "validation_windows": 8}
SMALLER_MODEL = {"patch": 12, "context": 48, "d_model": 32, "n_heads": 4, "d_ff": 32, "n_layers": 1}
# Shown commands that cannot be run here: they are parsed, and why.
PARSED_ONLY = {
    "data fetch": "downloads a published file",
    "dashboard": "serves until it is interrupted; tests/browser walks it",
    "tensorboard": "serves until it is interrupted",
    "submit": "needs a cluster; tests/foredraft/cluster walks it",
    "doctor": "looks at this very machine; tests/foredraft/cluster walks it",
    "--png": "needs a browser; tests/browser walks it",
    "--workers": "Ray Train's workers are walked by test_train, minutes long",
}
OTHER_PROGRAMS = {"git", "make", "export", "ray", "pip", "tensorboard", "optuna-dashboard"}
VERBS = ("data", "train", "import", "evaluate", "bench", "progression", "drafts", "search")
VERBS += ("report", "dashboard", "tensorboard", "reprice", "forecast", "submit", "doctor")


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Made(NamedTuple):
    """What the walked commands work on."""

    target: str
    draft: str
    walked: dict[tuple[str, ...], Ended]

    def walk(self, words: list[str]) -> Ended:
        """The end of a command; the same one is run once, and resumed only if begun."""
        key = tuple(words)
        if "--resume" in words and key not in self.walked:
            self.walk([word for word in words if word != "--resume"])
        if key not in self.walked:
            self.walked[key] = end_of(words)
        return self.walked[key]


def end_of(words: list[str]) -> Ended:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A working directory with data, a target and a draft."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("FOREDRAFT_DATA", raising=False)
        patch.chdir(folder)
        # The named architectures and ladders at a size that a test can wait for, timed briefly.
        patch.setattr(bench, "PRESETS", dict.fromkeys(bench.PRESETS, TINY))
        patch.setattr(timing, "WARM_UP_S", 0.05)
        patch.setattr(timing, "CALIBRATION_S", 0.1)
        write_inputs(folder)
        train = small(["train", "target", "--recipe", "demo"])
        target = json.loads(end_of([*train, "--json"]).out)["key"]
        climbed = functools.partial(tiny_ladder, target)
        patch.setattr(ladders, "LADDERS", dict.fromkeys(ladders.LADDERS, climbed))
        # In fp32, as the ladder's: what a ladder needs is not pruned by the commands that prune.
        train = f"train draft --target {target} --scale 0.5 --stages scratch --data small.csv"
        train += " --set dtype=fp32"
        draft = json.loads(end_of([*small(train.split()), "--json"]).out)["key"]
        study = (ROOT / "search_spaces" / "smoke.yaml").read_text()
        study = re.sub("name: smoke", "name: mine", study)
        study = re.sub("confirm_pairs: 4", "confirm_pairs: 1", study)
        (folder / "mine.yaml").write_text(study + "budget: 100.0\nsampler: random\n")
        shutil.copytree(f"runs/drafts/{draft}", f"spare/drafts/{draft}")
        yield Made(target, draft, {})


@pytest.fixture(scope="module")
def searched(made: Made, ray_cluster: None) -> Made:
    """The same with a study of two trials."""
    ended = made.walk(["search", "mine.yaml", "--trials", "2"])
    assert ended.code == 0, ended.err
    return made


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Made:
    """What a command needs: only those about a study wait for one."""
    words = request.getfixturevalue("command").split()
    needs_study = (
        words[0] in ("search", "report", "reprice", "forecast") and "--dry-run" not in words
    )
    found: Made = request.getfixturevalue("searched" if needs_study else "made")
    return found


def write_inputs(folder: Path) -> None:
    for name in ("small", "wide", "other"):
        made = data.load("synthetic-etth:rows=1200")
        frame = pd.DataFrame(made.values_TC, columns=made.variates)
        frame.insert(0, "date", made.time)
        frame.to_csv(folder / f"{name}.csv", index=False)
    state = {"embedding.weight": torch.zeros(8, 4), "embedding.bias": torch.zeros(8)}
    state |= {"head.weight": torch.zeros(4, 8), "head.bias": torch.zeros(4)}
    layer = "blocks.attn_layers.0"
    shapes = {"conv1": (16, 8, 1), "conv2": (8, 16, 1), "norm1": (8,), "norm2": (8,)}
    parts = ("query", "key", "value", "out")
    shapes |= {f"attention.{part}_projection": (8, 8) for part in parts}
    for part, shape in shapes.items():
        state[f"{layer}.{part}.weight"] = torch.ones(shape)
        state[f"{layer}.{part}.bias"] = torch.zeros(shape[0])
    state |= {"blocks.norm.weight": torch.ones(8), "blocks.norm.bias": torch.zeros(8)}
    state[f"{layer}.attention.inner_attention.attn_bias.emb.weight"] = torch.zeros(2, 2)
    torch.save(state, folder / "checkpoint.pth")
    theirs = runpy.run_path(str(ROOT / "tests" / "timer" / "generate.py"))
    case = theirs["CASES"]["a batch"]
    (folder / "timer-base-84m").mkdir()
    save_file(theirs["random_state"](case), folder / "timer-base-84m" / "model.safetensors")
    (folder / "timer-base-84m" / "config.json").write_text(json.dumps(case.config))


def tiny_ladder(target: str) -> ladders.Ladder:
    stage = Stage(name="scratch", data="small.csv", **SMALLER_STAGE)
    rungs = [ladders.Rung(name=f"{scale}x", scales=(scale,), stages=(stage,)) for scale in (0.5, 1)]
    evaluation = Evaluation(data="small.csv", split="test", horizon=60)
    return ladders.Ladder(
        name="tiny", target=target, rungs=tuple(rungs), evaluation=evaluation, pairs=2
    )


def small(words: list[str], *, target: str = "", draft: str = "") -> list[str]:
    """The words of a shown command, with what stands for them and what makes them small."""
    keys = {"--target": target, "--draft": draft}
    found: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if word in ("KEY", "0fb0", "6812"):
            found.append(keys.get(before, draft))
        elif before == "--recipe" and "/" not in word and words[0] != "forecast":
            found.append(word)
        else:
            found.append(",".join(stand_in(part) for part in word.split(",")))
    made_here = SMALLER["bench --preset"] if "--preset" in found else []
    for flag, value in in_pairs(SMALLER.get(found[0], []) + made_here):
        if not (flag == "--scale" and "heads" in found):  # heads have none
            put(found, flag, value)
    return found + smaller_training(found)


def stand_in(word: str) -> str:
    name, colon, weight = word.partition(":")
    return STANDS_FOR.get(word) or STANDS_FOR.get(name, name) + colon + weight


def in_pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))


def put(words: list[str], flag: str, value: str) -> None:
    if flag in words:
        words[words.index(flag) + 1] = value
    else:
        words += [flag, value]


def smaller_training(words: list[str]) -> list[str]:
    """`--set` of what a training is made small by, but for what the command sets itself."""
    if words[0] != "train":
        return []
    fields: dict[str, object] = {}
    if words[1] == "target":
        fields = {f"model.{name}": value for name, value in SMALLER_MODEL.items()}
        fields |= {f"stages.{index}.data": "small.csv" for index in (0, 1)}
        stages = [0, 1]
    else:
        stages = list(range(sum(word in STAGES for word in words)))
    fields |= {f"stages.{i}.{name}": value for i in stages for name, value in SMALLER_STAGE.items()}
    given = {word.partition("=")[0] for word in words}
    return ["--set", *(f"{name}={value}" for name, value in fields.items() if name not in given)]


STAGES = ("scratch", "pretrain", "finetune", "distill")


# Every verb


def every_verb() -> dict[str, str]:
    """A command line of each verb and each of its actions."""
    pair = "--target KEY --draft KEY"
    return {
        "data list": "data list",
        "data check": "data check small.csv",
        "train target": "train target --recipe demo",
        "train draft": "train draft --target KEY --scale 0.5 --stages scratch --data small.csv",
        "import": "import checkpoint.pth --kind draft --context 8",
        "evaluate": f"evaluate {pair} --data small.csv --acceptance mse_tol=1 lookahead=2",
        "bench": f"bench {pair} --data small.csv",
        "progression": "progression --recipe demo --target KEY",
        "drafts list": "drafts list",
        "drafts show": "drafts show 6812",
        "drafts prune": "drafts prune --storage spare",
        "search": "search mine.yaml --resume",
        "search --dry-run": "search mine.yaml --dry-run",
        "report": "report mine",
        "reprice": "reprice mine",
        "forecast": "forecast --recipe runs/studies/mine/best.json --data my.csv --out out.csv",
    }


@pytest.mark.parametrize("command", every_verb().values(), ids=every_verb())
def test_every_verb_ends_well_and_prints_for_a_person_and_for_a_program(
    world: Made, command: str
) -> None:
    words = small(command.split(), target=world.target, draft=world.draft)
    for_a_person = world.walk(words)
    assert for_a_person.code == 0, for_a_person.err
    assert for_a_person.out.strip()
    assert "{" not in for_a_person.out
    for_a_program = world.walk([*words, "--json"])
    assert for_a_program.code == 0, for_a_program.err
    assert json.loads(for_a_program.out.splitlines()[-1])


def test_no_verb_and_no_action_is_left_out() -> None:
    """But for those that cannot be run here."""
    words = {tuple(command.split()) for command in every_verb().values()}
    for name, actions in actions_of_all_verbs().items():
        for action in actions or ("",):
            start = (name, action) if action else (name,)
            known = any(word[: len(start)] == start for word in words)
            assert known or " ".join(start) in PARSED_ONLY, start


def actions_of_all_verbs() -> dict[str, tuple[str, ...]]:
    """The verbs as `main` knows them, each with the words that may follow as its action."""
    found: dict[str, tuple[str, ...]] = {}
    for member in Command.__args__:
        kind, how = member.__origin__, member.__metadata__[0]
        action = kind.__dataclass_fields__.get("action") or kind.__dataclass_fields__.get("kind")
        words = re.findall(r'"(\w+)"', str(action.type)) if action else []
        found[how.name] = tuple(words) if how.name != "import" else ()
    assert set(found) == set(VERBS)
    return found


# Every command that is shown


def shown_commands() -> list[tuple[str, str]]:
    """Where a command is shown, and its words after `foredraft`."""
    found = [("README.md", line) for line in fenced(ROOT / "README.md")]
    found += [("README.md", span) for span in spans((ROOT / "README.md").read_text())]
    for folder in ("platform", "models"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for text in docstrings(path):
                lines = joined(text.splitlines()) + spans(text)
                found += [(str(path.relative_to(ROOT)), line) for line in lines]
    for path in (ROOT / "cluster.yaml", *sorted((ROOT / "search_spaces").glob("*.yaml"))):
        comments = [line[1:] for line in path.read_text().splitlines() if line.startswith("#")]
        found += [(str(path.relative_to(ROOT)), line) for line in joined(comments)]
    commands = [(where, after_program(line)) for where, line in found]
    return [(where, words) for where, words in commands if words.split(" ")[0] in VERBS]


def after_program(line: str) -> str:
    """The words after `foredraft`, of a line that begins with it or hands it to another program."""
    line = line.split("  #")[0].strip()
    begun = re.match(r"(?:\.venv/bin/)?foredraft (.*)|.*python -m foredraft (.*)", line)
    return next(filter(None, begun.groups()), "") if begun else ""


def joined(lines: list[str]) -> list[str]:
    """The lines, with those that end in a backslash and their next as one."""
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def fenced(path: Path) -> list[str]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fence.findall(path.read_text()) if not language]
    return [line for block in blocks for line in joined(block.splitlines())]


def spans(text: str) -> list[str]:
    """What stands in backticks and is a whole command: a verb alone is only mentioned."""
    found = [" ".join(span.split()) for span in re.findall(r"`(foredraft [^`]+)`", text)]
    return [span for span in found if len(span.split()) > 2]


def docstrings(path: Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def unique(commands: list[tuple[str, str]]) -> list[Any]:
    first: dict[str, str] = {}
    for where, command in commands:
        first.setdefault(command, where)
    return [pytest.param(command, id=f"{first[command]}: {command}") for command in first]


@pytest.mark.parametrize("command", unique(shown_commands()))
def test_every_command_that_is_shown_runs_as_it_is_written(world: Made, command: str) -> None:
    words = shlex.split(command)
    parsed(words).check()
    for word in words:
        if word.startswith("search_spaces/"):
            assert read_study(ROOT / word)
    if not any(part in command for part in PARSED_ONLY):
        ended = world.walk(small(words, target=world.target, draft=world.draft))
        assert ended.code == 0, ended.err


def test_the_texts_show_as_many_commands_as_were_found() -> None:
    """A command that the extraction misses would never be walked."""
    places = {where for where, _ in shown_commands()}
    assert {"README.md", "cluster.yaml", "platform/foredraft/cli/training.py"} <= places
    assert len(unique(shown_commands())) >= 35
    lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in fenced(ROOT / "README.md")]
    programs = {line.split()[0] for line in lines if re.match(r"[a-z-]+ ", line)}
    assert programs <= OTHER_PROGRAMS | {"foredraft"}


def test_the_python_that_docstrings_show_knows_its_names_and_keywords() -> None:
    wrong = []
    for path in sorted((ROOT / "platform").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "platform").with_suffix("").parts)
        module = module.removesuffix(".__init__")
        if module == "foredraft.__main__":
            continue
        for call in shown_calls(path):
            wrong += [f"{module}: {trouble}" for trouble in troubles(call, module)]
    assert not wrong


def shown_calls(path: Path) -> Iterator[ast.Call]:
    """Calls in the indented examples of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    for block in re.findall(r"(?:^    .+\n?)+", text, flags=re.MULTILINE):
        with contextlib.suppress(SyntaxError):
            tree = ast.parse(re.sub(r"^    ", "", block, flags=re.MULTILINE))
            yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def troubles(call: ast.Call, module: str) -> Iterator[str]:
    """What a call names that is not there: a keyword of a function or class of the module."""
    known = vars(importlib.import_module(module))
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    function = known.get(name)
    if function is None or not str(getattr(function, "__module__", "")).startswith("foredraft"):
        return
    fields = getattr(function, "model_fields", None) or inspect.signature(function).parameters
    kinds = [getattr(field, "kind", None) for field in fields.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return
    for keyword in call.keywords:
        if keyword.arg not in (*fields, None):
            yield f"{name}({keyword.arg}=)"


# As a process


def test_the_version_is_told_and_a_reader_may_leave_early() -> None:
    command = f"{sys.executable} -m foredraft"
    told = subprocess.run(
        ["bash", "-c", f"{command} --version; {command} --help | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = told.stdout.splitlines()
    assert re.fullmatch(r"foredraft \d+\.\d+\.\d+.*", first)
    assert second.startswith("usage: foredraft")
    assert told.stderr == ""
