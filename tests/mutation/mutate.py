"""How many faults would the tests notice? Faults are put in one at a time, and the tests run.

    .venv/bin/python tests/mutation/mutate.py --mutants 25 --seed 0 --out mutation.md
    .venv/bin/python tests/mutation/mutate.py --modules evaluate data --mutants 200

A mutant is a copy of the tree with one small fault: a comparison turned, a sum made a difference, a
constant one larger, a condition negated, a statement gone, another split read. It is killed where
one of the tests that run its line fails. What survives is printed with its line: a claim that
nobody tests, or a change that changes nothing. Tests that need Ray, a browser or a GPU are left
out, and so are those that take long; the table says how many. Not part of `make test`: it takes
about ten seconds a mutant and core.
"""

from __future__ import annotations

import argparse
import collections
import difflib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import mutators
import pytest

ROOT = Path(__file__).parents[2]
PLATFORM = "platform/foredraft"
OURS = ("foredraft", "speculation", "timer", "timer_xl")
COPIED = ("platform", "models", "tests", "search_spaces", "docs", "benchmarks")

# Each module, and the tests that may kill its mutants, the likeliest first. What does not exist is
# passed over, so that one table serves an older commit too.
TRAINING = ("train/training_numbers", "train/lessons", "train/train")
SUBJECTS = {
    "data/dataset.py": (
        "data/windows",
        "data/long",
        "data/holes",
        "data/data_numbers",
        "data/data",
        "judge/evaluate_numbers",
        "train/lessons",
        "train/train",
    ),
    "data/windows.py": ("data/windows", "data/data_numbers", "data/holes"),
    "data/holes.py": ("data/holes", "data/long", "data/data"),
    "data/scale.py": ("data/data_numbers", "data/holes", "data/long", "data/data"),
    "data/splits.py": ("data/data_numbers", "data/long", "data/data"),
    "data/store.py": ("data/data", "data/holes", "data/long"),
    "data/loading.py": ("data/data", "data/holes", "data/data_numbers"),
    "data/quality.py": ("data/quality",),
    "data/oddities.py": ("data/quality",),
    "data/tables/table.py": ("data/tables", "data/public_forms", "data/data"),
    "data/tables/columns.py": ("data/tables", "data/public_forms"),
    "data/tables/values.py": ("data/tables", "data/formats"),
    "data/tables/formats.py": ("data/formats",),
    "data/tables/texts.py": ("data/formats",),
    "data/tables/dialect.py": ("data/formats", "data/public_forms"),
    "data/tables/long.py": ("data/long", "data/public_forms"),
    "data/time/steps.py": ("data/times",),
    "data/time/stamps.py": ("data/times", "data/public_forms"),
    "data/registry.py": ("data/data", "data/data_numbers"),
    "judge/yardstick.py": ("judge/yardstick",),
    "train/loop.py": TRAINING,
    "train/learner.py": TRAINING,
    "train/lessons.py": TRAINING,
    "train/losses.py": TRAINING,
    "train/teacher.py": TRAINING,
    "train/runs.py": TRAINING,
    "judge/evaluate.py": (
        "judge/evaluate_numbers",
        "judge/evaluate",
        "judge/closed_form",
        "train/train",
    ),
    "bank/store.py": ("bank/keys", "bank/bank", "train/train"),
    "bank/claims.py": ("bank/claims", "bank/bank"),
}
WITHOUT_FIXTURES = {"ray_cluster"}
WITHOUT_MARKERS = {"browser", "gpu", "real_data", "install"}
LIMIT_S = 120.0


class Verdict(NamedTuple):
    """What became of a mutant."""

    subject: str
    mutant: mutators.Mutant
    outcome: str
    """the test that killed it, `timeout`, or `survived`"""


class Witness:
    """A pytest plugin: which tests run, how long each takes, and which lines of ours it runs."""

    def __init__(self, tree: Path, *, chosen: list[str] | None = None, trace: bool = False) -> None:
        self.order = None if chosen is None else {name: place for place, name in enumerate(chosen)}
        self.subjects = {str(tree / PLATFORM / name): name for name in SUBJECTS}
        self.trace = trace
        self.lines: dict[str, set[tuple[str, int]]] = collections.defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._now = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if not self._is_left_out(item)]
        if self.order is not None:
            order = self.order
            kept = [item for item in kept if item.nodeid in order]
            kept.sort(key=lambda item: order[item.nodeid])
        items[:] = kept

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        # What a fixture of a whole module runs, it runs for every test of the module.
        self._now = nodeid.partition("::")[0]
        if self.trace:
            sys.settrace(self._enter)
            threading.settrace(self._enter)

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._now = item.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def _is_left_out(self, item: pytest.Item) -> bool:
        names = set(getattr(item, "fixturenames", ()))
        markers = {marker.name for marker in item.iter_markers()}
        return bool(names & WITHOUT_FIXTURES or markers & WITHOUT_MARKERS)

    def _enter(self, frame: Any, event: str, _: object) -> Callable[..., Any] | None:
        subject = self.subjects.get(frame.f_code.co_filename)
        if subject is None:
            return None

        def line(frame: Any, event: str, _: object) -> Callable[..., Any]:
            self.lines[self._now].add((subject, frame.f_lineno))
            return line

        return line


class Child:
    """Work in a forked process, which has all of torch loaded already."""

    def __init__(self, work: Callable[[], Any], *, limit_s: float, folder: Path) -> None:
        self.log, self._answer = folder / "child.log", folder / "child.json"
        self._answer.unlink(missing_ok=True)
        self._deadline = time.monotonic() + limit_s
        self.was_ended = False
        self._process = os.fork()
        if self._process == 0:
            self._work(work)

    def _work(self, work: Callable[[], Any]) -> None:
        try:
            os.setsid()
            with self.log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            self._answer.write_text(json.dumps(work()))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def is_done(self) -> bool:
        """Whether it has ended; it is ended where it took too long."""
        if os.waitpid(self._process, os.WNOHANG) != (0, 0):
            return True
        if time.monotonic() < self._deadline:
            return False
        self.end()
        return True

    def end(self) -> None:
        """Nothing; it is killed, with whatever it started."""
        self.was_ended = True
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def answer(self) -> Any:
        """What the work returned; None where it was ended."""
        while not self.is_done():
            time.sleep(0.05)
        return self.read()

    def read(self) -> Any:
        """What the work had returned when it was done."""
        return json.loads(self._answer.read_text()) if self._answer.is_file() else None


def run_tests(
    tree: Path, files: list[str], *, chosen: list[str] | None = None, trace: bool = False
) -> dict[str, Any]:
    """What pytest says of the tree's tests, run in this process; all of them where `trace`."""
    sources = [str(tree / "platform"), str(tree / "models")]
    sys.path[:0] = sources
    os.environ["PYTHONPATH"] = os.pathsep.join(sources)
    os.environ["XDG_CACHE_HOME"] = str(tree / "cache")
    os.environ["TMPDIR"] = tempfile.tempdir = str(tree)
    os.chdir(tree)
    sys.dont_write_bytecode = not trace
    witness = Witness(tree, chosen=chosen, trace=trace)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", f"--basetemp={tree}/tmp"]
    # What the parent imported for all of them is there before pytest could rewrite its assertions.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += [] if trace else ["-x"]
    code = pytest.main([*options, *files], plugins=[witness])
    sys.settrace(None)
    foreign = [name for name in sys.modules if not name.startswith(OURS)]
    return {
        "code": int(code),
        "failed": witness.failed,
        "seconds": witness.seconds,
        "lines": {name: sorted(lines) for name, lines in witness.lines.items()},
        "modules": [name for name in foreign if "test" not in name],
    }


def copied(folder: Path) -> Path:
    """A copy of the tree's sources and tests, to be mutated."""
    tree = Path(tempfile.mkdtemp(prefix="tree-", dir=folder))
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, tree)
    return tree


def tests_of(subject: str) -> list[str]:
    """The test files that may kill the subject's mutants, as far as they exist."""
    rooms = (name.split("/") for name in SUBJECTS[subject])
    files = (f"tests/foredraft/{room}/test_{name}.py" for room, name in rooms)
    return [file for file in files if (ROOT / file).is_file()]


def measured(tree: Path, files: list[str]) -> dict[str, Any]:
    """The tests as they are: their seconds and lines by test, all of them passing."""
    found: dict[str, Any] = {"seconds": {}, "lines": {}}
    for file in files:
        work = functools.partial(run_tests, tree, [file], trace=True)
        child = Child(work, limit_s=900, folder=tree)
        answer = child.answer()
        if not answer or answer["code"] != 0:
            sys.exit(f"{file} fails without a mutant:\n{child.log.read_text()[-3000:]}")
        for part in found:
            found[part].update(answer[part])
        for name in answer["modules"]:
            _imported(name)
        print(f"{file}: {sum(answer['seconds'].values()):.0f} s", file=sys.stderr)
    return found


def _imported(name: str) -> None:
    """Nothing; every child that is forked from now on has the module, save what starts threads."""
    if name.startswith(("ray", "grpc", "_pytest", "google")):
        return
    try:
        __import__(name)
    except Exception:
        return  # a name that is made while its package is imported


def killers(
    subject: str, mutant: mutators.Mutant, baseline: dict[str, Any], *, slowest: float
) -> dict[str, float]:
    """Seconds of the tests that run the mutant's lines: the likeliest file first, quickest first.

    A line that runs at the import may be felt by every test that runs any line of the module.
    """
    files = tests_of(subject)

    def feels(name: str) -> bool:
        lines = {n for s, n in baseline["lines"].get(name, ()) if s == subject}
        return bool(lines if mutant.at_import else lines.intersection(mutant.lines))

    chosen = [
        (files.index(file_of(name)), seconds, name)
        for name, seconds in baseline["seconds"].items()
        if file_of(name) in files and seconds <= slowest and (feels(name) or feels(file_of(name)))
    ]
    return {name: seconds for _, seconds, name in sorted(chosen)}


def file_of(test: str) -> str:
    """The test's file."""
    return test.partition("::")[0]


class Trial:
    """One mutant, at work in a tree of its own; the tree is as it was when the verdict is given."""

    clock = 1_000_000_000.0  # file times, never those of anything that is compiled

    def __init__(
        self, subject: str, mutant: mutators.Mutant, tree: Path, *, chosen: dict[str, float]
    ) -> None:
        self.subject, self.mutant, self.tree = subject, mutant, tree
        self._path = tree / PLATFORM / subject
        self._original = self._path.read_text()
        self._path.write_text(mutant.source)
        Trial.clock += 10
        os.utime(self._path, (Trial.clock, Trial.clock))
        shutil.rmtree(tree / "cache", ignore_errors=True)
        files = list(dict.fromkeys(file_of(name) for name in chosen))
        work = functools.partial(run_tests, tree, files, chosen=list(chosen))
        limit_s = min(LIMIT_S, 20 + 5 * sum(chosen.values()))
        self.child = Child(work, limit_s=limit_s, folder=tree)

    def verdict(self) -> Verdict | None:
        """What the tests say; None while they run."""
        if not self.child.is_done():
            return None
        answer = self.child.read()
        self._path.write_text(self._original)
        if self.child.was_ended:
            return Verdict(self.subject, self.mutant, "timeout")
        # A run that says nothing of the mutant is none: it would count as a kill.
        if answer is None or answer["code"] == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise RuntimeError(self.child.log.read_text())
        killer = (answer["failed"] or ["import"])[0] if answer["code"] else "survived"
        return Verdict(self.subject, self.mutant, killer)


def judged(
    work: list[tuple[str, mutators.Mutant]],
    trees: list[Path],
    baseline: dict[str, Any],
    *,
    slowest: float,
) -> Generator[Verdict, None, None]:
    """The verdict of every mutant as it is known, as many at a time as there are trees."""
    waiting, free, running = list(reversed(work)), list(trees), list[Trial]()
    try:
        while waiting or running:
            while waiting and free:
                subject, mutant = waiting.pop()
                chosen = killers(subject, mutant, baseline, slowest=slowest)
                if chosen:
                    running.append(Trial(subject, mutant, free.pop(), chosen=chosen))
                else:
                    yield Verdict(subject, mutant, "survived: no test runs it")
            for trial in list(running):
                verdict = trial.verdict()
                if verdict:
                    running.remove(trial)
                    free.append(trial.tree)
                    yield verdict
            time.sleep(0.05)
    finally:
        for trial in running:
            trial.child.end()


def table(verdicts: list[Verdict], *, title: str) -> str:
    """The verdicts in Markdown: counts by module, then every survivor with its change."""
    lines = [title, "", "| module | mutants | killed | survived |", "|---|---|---|---|"]
    for subject in dict.fromkeys(verdict.subject for verdict in verdicts):
        of_it = [verdict for verdict in verdicts if verdict.subject == subject]
        alive = sum(verdict.outcome.startswith("survived") for verdict in of_it)
        lines.append(f"| {subject} | {len(of_it)} | {len(of_it) - alive} | {alive} |")
    alive = sum(verdict.outcome.startswith("survived") for verdict in verdicts)
    lines += [
        f"| all | {len(verdicts)} | {len(verdicts) - alive} | {alive} |",
        "",
        "Survivors:",
        "",
    ]
    for verdict in verdicts:
        if verdict.outcome.startswith("survived"):
            mutant = verdict.mutant
            about = f"{verdict.subject}:{mutant.lines[0]}, {mutant.kind}, {verdict.outcome}"
            lines += [about, "```diff"]
            lines += [*_diff(ROOT / PLATFORM / verdict.subject, mutant.source), "```"]
    return "\n".join(lines) + "\n"


def _diff(path: Path, source: str) -> list[str]:
    found = difflib.unified_diff(
        path.read_text().splitlines(), source.splitlines(), n=0, lineterm=""
    )
    return [line for line in found if not line.startswith(("---", "+++", "@@"))]


def main() -> None:
    """Mutate, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", nargs="*", default=[""], help="parts of the modules' paths")
    parser.add_argument("--mutants", type=int, default=25, help="of each module, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600.0, help="after which it stops")
    parser.add_argument("--slowest", type=float, default=10.0, help="seconds of a test that is run")
    parser.add_argument("--out", type=Path, help="where to write the table; else it is printed")
    asked = parser.parse_args()
    there = [subject for subject in SUBJECTS if (ROOT / PLATFORM / subject).is_file()]
    subjects = [subject for subject in there if any(part in subject for part in asked.modules)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        trees = [copied(Path(folder)) for _ in range(asked.jobs)]
        files = list(dict.fromkeys(file for subject in subjects for file in tests_of(subject)))
        baseline = measured(trees[0], files)
        slow = [name for name, seconds in baseline["seconds"].items() if seconds > asked.slowest]
        samples = [[(s, m) for m in _sampled(s, asked.mutants, seed=asked.seed)] for s in subjects]
        # One of each module, then the next of each: a run that is cut short tells of all alike.
        work = [item for turn in itertools.zip_longest(*samples) for item in turn if item]
        verdicts: list[Verdict] = []
        stream = judged(work, trees, baseline, slowest=asked.slowest)
        for verdict in stream:
            where = f"{verdict.subject}:{verdict.mutant.lines[0]} {verdict.mutant.kind}"
            print(f"{len(verdicts) + 1}/{len(work)} {where}: {verdict.outcome}", file=sys.stderr)
            verdicts.append(verdict)
            if time.monotonic() - began > 60 * asked.minutes:
                break
        stream.close()
    verdicts.sort(key=lambda v: (subjects.index(v.subject), v.mutant.lines))
    title = (
        f"{len(verdicts)} mutants, seed {asked.seed}, in {(time.monotonic() - began) / 60:.0f} "
        f"minutes on {asked.jobs} processes; {len(baseline['seconds'])} tests, of which "
        f"{len(slow)} that take more than {asked.slowest:g} s were left out."
    )
    text = table(verdicts, title=title)
    if asked.out:
        asked.out.write_text(text)
    else:
        print(text)


def _sampled(subject: str, count: int, *, seed: int) -> list[mutators.Mutant]:
    """Some mutants of the module by lot: one of every line before a second of any."""
    found = mutators.mutants((ROOT / PLATFORM / subject).read_text())
    random.Random(f"{seed} {subject}").shuffle(found)
    seen = collections.Counter[int]()
    ranked = []
    for mutant in found:
        ranked.append((seen[mutant.lines[0]], mutant))
        seen[mutant.lines[0]] += 1
    return [mutant for _, mutant in sorted(ranked, key=lambda pair: pair[0])][:count]


if __name__ == "__main__":
    main()
