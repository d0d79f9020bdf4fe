"""The joint study: Ray Tune and Optuna over draft scale and acceptance, each draft trained once.

    directory = run(read_study(Path("search_spaces/etth1.yaml")), storage=Path("runs"))

Each trial has a coordinator that holds no CPU and no GPU (coordinator). It asks for its draft,
which is trained as a task of its own if nobody had it before; has the pair judged as another task,
which decodes nothing of what the closed form knows to be hopeless (judging); and reports to Optuna,
whose storage keeps all (searcher).
Inside the search speed is what the cost model predicts from passes timed while the machine was
otherwise idle, so that trials may share it. At the end every point of the front is timed for real
(confirm).
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.execution import class_cache
from rich.console import Console

from foredraft import bank, buckets, data, files, provenance, redaction, train
from foredraft.bank import claims
from foredraft.cluster import allotment, lifeline
from foredraft.cluster.allotment import Allotment
from foredraft.cluster.joining import cluster_in_words, connect
from foredraft.cluster.nodes import check_shared
from foredraft.cluster.tasks import result, submit
from foredraft.documents import read_mapping, yaml_text
from foredraft.errors import ConfigError
from foredraft.interruption import ctrl_c_kept, end_at_once
from foredraft.judge import evaluate, yardstick
from foredraft.search import confirm, disk, judging, once, record, results, stops, warm
from foredraft.search.coordinator import COORDINATOR, Coordinator
from foredraft.search.nested import Nested
from foredraft.search.progress import Bar, Board, Drafts, epoch_in_words
from foredraft.search.record import Record
from foredraft.search.references import Target
from foredraft.search.searcher import OptunaSearcher, held_trials, open_record
from foredraft.search.workshop import Job, Workshop
from foredraft.settings.config import Training, validated
from foredraft.settings.recipes import RECIPES, recipe
from foredraft.settings.study import Study, StudyStopped
from foredraft.train.journal import following, reading_on
from speculation.forecaster import Architecture

__all__ = ["connect", "run", "target_of"]

# What may differ when a study goes on: how much of it, and on what machine.
MAY_CHANGE = {"trials", "machine", "confirm_pairs", "confirm_windows"}

# Where Ray unpacks the working directory of a submitted job, and removes it when it likes.
PACKAGE_CACHE = "working_dir_files"


def run(
    study: Study,
    *,
    storage: Path,
    replace: bool = False,
    resume: bool = False,
    verbose: bool = False,
) -> Path:
    """The directory of the finished study: trials, front, choice, references, curves.

    Args:
        study: what to search.
        storage: directory of all artefacts.
        replace: start anew where a study of that name exists.
        resume: go on with one that was interrupted, or that now asks for more trials.
        verbose: show Ray Tune's own tables.

    Raises:
        ConfigError: the study exists already, something that it names does not, or the cluster
            or its storage is out of reach.
        DataError: its data cannot be read.
        StudyStopped: the same error three times in a row, an interruption, a disk that is full,
            read-only or gone, or most trials failed.
    """
    # Every trial has a working directory of its own.
    storage, study = storage.resolve(), study.located(Path.cwd())
    directory = storage / "studies" / study.name
    try:
        with stops.in_one_line(study, directory, begun=False):
            return _run(study, storage, replace=replace, resume=resume, verbose=verbose)
    except KeyboardInterrupt:
        if not (directory / "study.yaml").is_file():
            raise
        raise _interrupted(study) from None


def _run(study: Study, storage: Path, *, replace: bool, resume: bool, verbose: bool) -> Path:
    """The directory of the finished study."""
    directory = buckets.fetch(storage / "studies" / study.name)
    _check_directory(study, directory, replace=replace, resume=resume)
    notes = _check_data(study)
    target_training = target_of(study, storage)
    if isinstance(target_training, Training):
        study.check_target(target_training.model)
        train.checked(target_training, workers=max(1, study.machine.workers))
        _check_windows(study, target_training.model)
    else:
        _check_windows(study, bank.open_model(target_training).config)
    console = Console(stderr=True)
    for note in notes:
        _say(console, note)
    if PACKAGE_CACHE in storage.parts:
        console.print(
            f"storage {storage} lies in Ray's cache of packages and vanishes with it: give "
            "--storage, or set FOREDRAFT_STORAGE",
            soft_wrap=True,
        )
    with claims.held(storage / "claims" / f"study-{study.name}", wait=False):
        say, dashboard = functools.partial(_say, console), connect()
        console.print(cluster_in_words(dashboard), soft_wrap=True)
        given = allotment.of_cluster(study.machine, say=say)
        # After the first task, as only then a node may be there.
        check_shared(storage)
        # Once more, as only now nobody else begins it.
        buckets.fetch(directory)
        goes_on = _check_directory(study, directory, replace=replace, resume=resume)
        _open_directory(study, directory, anew=not goes_on, dashboard=dashboard)

        def lost(what: str) -> None:
            end_at_once(str(stops.of_cluster(study, what)))

        with (
            lifeline.held(lost=lost, say=say),
            stops.in_one_line(study, directory, begun=True),
        ):
            study = study.model_copy(update={"machine": given.machine})
            _to_its_end(study, target_training, storage, given, console, verbose=verbose)
    return directory


def _to_its_end(
    study: Study,
    training: Training | Path,
    storage: Path,
    given: Allotment,
    console: Console,
    *,
    verbose: bool,
) -> None:
    """Nothing; afterwards the study, whose directory is there, has all its trials and its files."""
    directory, origin = storage / "studies" / study.name, provenance.Origin.of()
    target = _obtain_target(study, training, storage, given, origin, console)
    _check_drafts(study, target, storage)
    # Who works on a trial needs no database, and Tune keeps what it is given in the storage.
    worked_on = study.model_copy(update={"database": None})
    job = Job(worked_on, storage, target.path, target.config, given, once.start(), origin)
    alone = _alone(job, target)
    console.print(f"target {target.key}: mse {alone.mse:.4f} alone{_beside_naive(alone)}")
    optuna_study = open_record(study, directory)
    begun = _record(study, optuna_study, alone)
    # A report is to show the target beside the trials while they run.
    results.write_references(begun, directory)
    buckets.keep(directory)
    _search(begun, optuna_study, job, console, verbose=verbose)
    ended = _record(study, optuna_study, alone)
    place = confirm.Place(storage, target.path, given)
    found = confirm.confirm(ended, place=place, console=console)
    results.write(found, directory, target=target)
    buckets.keep(directory)
    buckets.keep(storage / "tensorboard" / study.name)
    # What trials kept on other nodes, for the report.
    buckets.fetch(directory)
    _say_failures(found, console)


def _alone(job: Job, target: bank.Model) -> Target:
    """The target by itself, on the windows of the study, under its reference policy."""
    study, accuracy = job.study, Workshop(job).baseline(job.study.referred_to).reference
    season = yardstick.season_of(study.evaluation, target.config)
    windows = evaluate.draw_windows(study.evaluation, target.config)
    unit_C = yardstick.unit_of(study.evaluation, season=season)
    naive = yardstick.seasonal_naive(windows, season=season, unit_C=unit_C)
    return results.target_alone(target, accuracy, naive)


def _beside_naive(alone: Target) -> str:
    naive = alone.naive
    return f", seasonal naive {naive.mse:.4f} (season {naive.season})" if naive else ""


def _record(study: Study, optuna_study: optuna.Study, target: Target | None) -> Record:
    """What Optuna's study holds now."""
    trials = record.trials_of(optuna_study.get_trials(deepcopy=False), study=study)
    return Record(study, tuple(trials), target)


def _say_failures(found: Record, console: Console) -> None:
    """Nothing, where most trials came to something; says how many did not.

    Raises:
        StudyStopped: most of them failed.
    """
    name, own = found.study.name, record.own(found.trials)
    count, error = record.failures(own)
    if not count:
        return
    how_many = f"all {count}" if count == len(own) else f"{count} of {len(own)}"
    sentence = f"{how_many} trials failed, most often with: {error}"
    if 2 * count > len(own):
        raise StudyStopped(
            f"study {name!r}: {sentence} (`foredraft report {name}` shows all there is)"
        )
    console.print(sentence, soft_wrap=True)


def _check_directory(study: Study, directory: Path, *, replace: bool, resume: bool) -> bool:
    """Whether the study goes on with what there is: one without trials is none.

    Raises:
        ConfigError: the study may not be begun, or not go on, as it was asked for.
    """
    if replace and resume:
        raise ConfigError("--replace starts anew and --resume goes on: say one of them")
    # What is to be replaced need not be legible.
    trials = [] if replace and not study.database else held_trials(study, directory)
    if trials and not directory.exists():
        raise ConfigError(
            f"database {redaction.redacted(study.database or '')} holds a study {study.name!r} "
            "that was begun from another storage: give this one another name, or go on from there"
        )
    begun = bool(trials) or (directory / "trials.parquet").is_file()
    if begun and not (replace or resume):
        raise ConfigError(
            f"study {study.name!r} exists in {directory.parents[1]}: give it another name, "
            "go on with --resume, or start anew with --replace"
        )
    if not resume:
        return False
    if not (directory / "study.yaml").is_file():
        raise ConfigError(f"study {study.name!r} was never begun in {directory.parents[1]}")
    if not begun:
        return False
    record.read(study, directory)  # refuses the trials of another version, before their study
    kept = directory / "study.yaml"
    # By way of a study, so that a field which it did not have yet is at its default.
    before = _resolved(validated(Study, read_mapping(kept, what="a study"), source=str(kept)))
    now = _resolved(study)
    changed = sorted(n for n in now if now[n] != before[n] and n not in MAY_CHANGE)
    if changed:
        raise ConfigError(
            f"{changed[0]} of study {study.name!r} has changed since it began: give the new one "
            "another name and let it start from this by warm_start"
        )
    return True


def _check_data(study: Study) -> list[str]:
    """What looks odd in the data, all of which can be read; what is trained may take hours."""
    opened = [
        data.load(source, missing=missing, reading=reading)
        for source, missing, reading in study.sources
    ]
    return [note for dataset in opened for note in data.notes(dataset)]


def _check_windows(study: Study, architecture: Architecture) -> None:
    """Nothing, where there are windows to judge by: in the search, and on the test split after it.

    Raises:
        DataError: there are none.
    """
    for evaluation in (study.evaluation, confirm.unseen_by(study, study.evaluation)):
        if evaluation:
            evaluate.draw_windows(evaluation, architecture)


def _open_directory(study: Study, directory: Path, *, anew: bool, dashboard: str | None) -> None:
    """Nothing; afterwards the directory tells the study, `anew` without anything of before."""
    if anew and study.database:
        # A database that never had it, or has been emptied since, has nothing to delete.
        with contextlib.suppress(KeyError):
            optuna.delete_study(study_name=study.name, storage=study.database)
    if anew:
        buckets.remove(directory)
        buckets.remove(directory.parents[1] / "tensorboard" / study.name)
    directory.mkdir(parents=True, exist_ok=True)
    files.atomic_write(directory / "study.yaml", yaml_text(_resolved(study)))
    made = provenance.collect(seed=study.seed, ray_dashboard=dashboard)
    results.write_json(directory / "provenance.json", made)
    buckets.keep(directory)


def _resolved(study: Study) -> dict[str, Any]:
    """The study in full; a password in the database's address is not anybody's to read."""
    tree: dict[str, Any] = study.model_dump(mode="json")
    if study.database:
        tree["database"] = redaction.redacted(study.database)
    return tree


def target_of(study: Study, storage: Path) -> Training | Path:
    """How the target is trained, or where it is.

    Raises:
        ConfigError: it is neither a recipe nor a trained target.
    """
    if isinstance(study.target, Training):
        return study.target
    if study.target in RECIPES:
        return recipe(study.target)
    return bank.find(study.target, kind="target", storage=storage)


def _check_drafts(study: Study, target: bank.Model, storage: Path) -> None:
    """Nothing, where every draft can be built and has its data."""
    study.check_target(target.config)
    for training in study.drafts_of(target.config, path=target.path):
        bank.directory_of(training, kind="draft", storage=storage, machine=study.machine)


def _obtain_target(
    study: Study,
    training: Training | Path,
    storage: Path,
    given: Allotment,
    origin: provenance.Origin,
    console: Console,
) -> bank.Model:
    if isinstance(training, Path):
        return bank.open_model(training)
    path = bank.directory_of(training, kind="target", storage=storage, machine=study.machine)
    if not bank.is_whole(path):
        console.print(f"training target {path.name}")
        # Not what the bank itself follows: two who follow one journal would show all twice.
        epochs = bank.epochs_file(storage, path.name)
        arguments = (training, "target", storage, study.machine, origin, epochs)
        work = submit(judging.train_model, *arguments, share=given.training)
        with following(epochs, lambda row: console.print(epoch_in_words(row, "target"))):
            result(work)
        buckets.remove(epochs)
    return bank.open_model(path)


def _search(
    begun: Record, optuna_study: optuna.Study, job: Job, console: Console, *, verbose: bool
) -> None:
    """Nothing; afterwards Optuna's study holds as many trials of its own as were asked for.

    Fewer where a nested search expects nothing of any other setting.
    """
    study, storage = begun.study, job.storage
    at_once = _at_once(job, console)
    nested = Nested(job, at_once=at_once) if study.sampler == "nested" else None
    directory = storage / "studies" / study.name

    def is_excused(error: str) -> bool:
        return bool(disk.fault(directory, error) or lifeline.cut())

    searcher = OptunaSearcher(study, optuna_study, nested=nested, is_excused=is_excused)
    # The searcher has closed what a dead driver left: there may be more now than had begun.
    ended = [t for t in _record(study, optuna_study, begun.target).trials if t.state != "running"]
    if study.warm_start and not record.own(ended):
        console.print(warm.start(study, optuna_study, storage=storage))
    left = study.trials - len(record.own(ended))
    if left > 0:
        bar = Bar(study.trials, ended=ended, budget=study.budget)
        board = Board(storage / "tensorboard" / study.name, names=study.dimensions)
        searcher.told += [lambda _: _keep_database(directory), bar.tell, board.tell]
        try:
            with reading_on(Drafts(directory).read, where=directory):
                tuner = _tuner(job, searcher, bar, left=left, at_once=at_once, verbose=verbose)
                with ctrl_c_kept():
                    tuner.fit()
        finally:
            if nested:
                nested.close()
            shutil.rmtree(storage / "tune" / study.name, ignore_errors=True)
    if searcher.broken:
        raise searcher.broken
    if searcher.stuck:
        raise StudyStopped(
            f"study {study.name!r} stopped: three trials in a row failed with {searcher.stuck}"
        )
    count = len(record.own(_record(study, optuna_study, begun.target).trials))
    if nested and nested.exhausted:
        console.print(f"after {count} of {study.trials} trials: {nested.in_words}", soft_wrap=True)
    elif count < study.trials:
        raise _interrupted(study)


def _keep_database(directory: Path) -> None:
    """Nothing; afterwards a bucket has what was reported, where no server has it."""
    if (database := directory / record.DATABASE_FILE).is_file():
        buckets.keep(database, alone=True)


def _interrupted(study: Study) -> StudyStopped:
    return StudyStopped(f"study {study.name!r} was interrupted: --resume goes on with it")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _at_once(job: Job, console: Console) -> int:
    """Trials under way at once; says where that is fewer than were asked for."""
    at_once, wanted = job.allotment.at_once, job.study.machine.concurrency
    if wanted and at_once < wanted:
        console.print(f"concurrency {wanted}: there is room for {at_once}")
    return at_once


def _tuner(
    job: Job, searcher: OptunaSearcher, bar: Bar, *, left: int, at_once: int, verbose: bool
) -> tune.Tuner:
    """Tune's own machinery, whose directory is of no use afterwards: Optuna's storage holds all."""
    study, storage = job.study, job.storage
    shutil.rmtree(storage / "tune" / study.name, ignore_errors=True)
    # Tune would hand the driver's cloud keys to every trial by its runtime environment, which Ray
    # writes to its logs and shows on its dashboard. A node reaches a bucket by a role of its own.
    class_cache.ENV_VARS_TO_PROPAGATE -= {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
    }
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(Coordinator, job=job), COORDINATOR),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=left,
            max_concurrent_trials=at_once,
            reuse_actors=True,
            # Not the settings, of which Tune would make a name.
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=study.name,
            storage_path=str(storage / "tune"),
            verbose=2 if verbose else 0,
            failure_config=tune.FailureConfig(max_failures=2),
            # A trial has nothing to go on from; what it made is in the bank.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[bar],
        ),
    )
