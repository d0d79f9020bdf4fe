"""The report of a study: its record, then plain information, then figures, then one HTML file.

    foredraft report joint

Every `*_info` returns plain data and every `*_figure` draws nothing but such data, so that tests
never look at pixels. A study that is still running, or was stopped, is reported as far as it has
come: its trials are read from Optuna's storage.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from foredraft import buckets
from foredraft.files import atomic_write
from foredraft.redaction import redacted
from foredraft.report import page, tables
from foredraft.report.close_up import command_of
from foredraft.report.ladder import Content, ladder_sections
from foredraft.report.page import Tile
from foredraft.report.pictures import write_pictures
from foredraft.report.sections import Section, sections_of
from foredraft.report.study_files import StudyFiles, read_study_files
from foredraft.report.summary import Summary, summary_info
from foredraft.report.tables import number, percent, quantity
from foredraft.search import choice


def write_report(study_dir: Path) -> Path:
    """The path of `report.html`, written into the study's directory."""
    path = study_dir / "report.html"
    atomic_write(path, report_html(read_study_files(study_dir)))
    buckets.keep(path)
    return path


def pictures_of(study_dir: Path, folder: Path) -> list[Path]:
    """The paths of the key figures of the study in a directory, written as PNG files."""
    return write_pictures(read_study_files(study_dir), folder)


def report_html(study: StudyFiles) -> str:
    """The report as one self-contained page."""
    summary = summary_info(study.record)
    parts = [
        page.tiles_html(tiles(summary)),
        *map(_section_html, sections_of(study)),
        *_table_sections(study),
    ]
    return page.page_html(
        study.name,
        about=about_text(study),
        reading=summary.reading,
        notes=summary.notes,
        parts=parts,
    )


def about_text(study: StudyFiles) -> str:
    """What was forecast, with which target and when, in one line."""
    evaluation, target = study.record.study.evaluation, study.record.target
    made = str(study.provenance.get("time_utc", ""))
    parts = [
        f"Horizon {evaluation.horizon} in patches of {target.patch if target else '?'}",
        f"batch {evaluation.batch}",
        f"target of {quantity(target.parameters)} parameters" if target else "",
        f"{made[:16].replace('T', ' ')} UTC" if made else "",
    ]
    return " · ".join(part for part in parts if part)


def tiles(summary: Summary) -> list[Tile]:
    """The key figures, the one that matters most first."""
    best, states = summary.best, summary.states
    others = [f"{count} {state}" for state, count in states.items() if state != "complete"]
    counts = ", ".join([f"{summary.feasible} within the budget", *others])
    done = Tile("Trials complete", str(states.get("complete", 0)), counts)
    drafts = Tile("Drafts trained", str(summary.num_drafts), "distinct architectures and recipes")
    if best is None:
        note = (
            "target alone recommended: no gain established" if summary.alone else "no trial so far"
        )
        return [Tile("Speedup within budget", "–", note), done, drafts]
    interval = tables.interval_text(best.low, best.high, pairs=best.pairs)
    note = interval if best.measured else "predicted, not measured yet"
    length = f"{number(summary.accept_length, digits=2)} patches a round"
    budget = f"mse ratio; budget {summary.budget.in_words}"
    return [
        Tile("Speedup within budget", f"{best.measured or best.predicted:.2f}×", note),
        Tile("Its acceptance rate", percent(best.acceptance), length),
        Tile("Its error over the target's", number(best.mse_ratio), budget),
        done,
        drafts,
    ]


def _section_html(section: Section) -> str:
    figure = page.figure_html(
        section.figure, name=section.name, reading=section.reading, min_width=section.min_width
    )
    return page.section_html(section.title, figure, lead=section.lead)


def all_ladder_sections(ladders: Sequence[Content]) -> list[str]:
    """The sections of several ladders on one page, each figure under a name of its own."""
    return [
        section
        for place, ladder in enumerate(ladders)
        for section in ladder_sections(ladder, name=f"ladder-{place}")
    ]


def _commands(study: StudyFiles) -> str:
    """What judges each point of the front again, on a line of its own."""
    storage = study.path.resolve().parents[1]
    return "\n\n".join(
        f"# trial {point.trial.number}\n{command_of(point, study.record, storage=storage)}"
        for point in study.record.front
    )


def _table_sections(study: StudyFiles) -> list[str]:
    record, references = study.record, study.record.references
    front, failures = tables.front_table(record), tables.failures_table(record.trials)
    sections = []
    if front.rows:
        chosen = record.choice
        lead = ""
        if chosen and chosen.outcome.measured:
            rule = choice.rule_in_words(record.study.budget)
            lead = f"The highlighted trial is the recommended one: the {rule}."
        if chosen and chosen.outcome.fresh:
            lead += " Its speed was measured once more after it had been chosen."
        commands = page.details_html("How to judge each of them again", _commands(study))
        table = page.table_html(front) + commands
        sections.append(page.section_html("The front", table, lead=lead))
    if references:
        drafts = page.table_html(tables.drafts_table(references))
        lead = "Each model by itself: its size, its error, and its speed over the target's."
        sections.append(page.section_html("Target and drafts, each alone", drafts, lead=lead))
    if failures.rows:
        sections.append(page.section_html("Failed trials", page.table_html(failures)))
    sections += all_ladder_sections(study.ladders)
    settings = yaml.safe_dump(study.settings, sort_keys=False, allow_unicode=True)
    # A team's database address may be among the settings, password and all.
    folded = page.details_html("The study as it was run (study.yaml)", redacted(settings))
    if study.provenance:
        folded += page.tree_html("Where these results come from (provenance)", study.provenance)
    return [*sections, page.section_html("Record", folded)]
