"""The verb `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from foredraft import bank, data
from foredraft.cli.common import Common, Result, show
from foredraft.cli.reading import ReadsData
from foredraft.data.oddities import Finding
from foredraft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Data(ReadsData, Common):
    """The data sets: what there is, where it is, whether a file can be used.

    For example:

        foredraft data list
        foredraft data fetch ETTh1
        foredraft data check my.csv
        foredraft data check my.csv --for runs/studies/demo/best.json
    """

    action: Positional[Literal["list", "fetch", "check"]]
    name: Positional[str | None] = None
    """a name for `fetch`, a path for `check`"""
    suits: Annotated[str | None, arg(name="for")] = None
    """`check` only: a recipe, or the key or directory of a target, that is to read the data"""

    def run(self) -> Result:
        """The catalogue, the file fetched, or what a file holds."""
        if self.suits is not None and self.action != "check":
            raise ConfigError(f"--for has no effect on data {self.action}: leave it out")
        if self.action == "list":
            if self.name is not None:
                raise ConfigError(f"data list takes no name: {self.name!r} has no effect")
            return {"datasets": data.catalogue()}
        if self.name is None:
            raise ConfigError(f"data {self.action}: give a name or a path")
        if self.action == "fetch":
            return {"file": str(data.fetch(self.name))}
        report = data.check(self.name, reading=self.reading, missing=self.missing)
        if self.suits is not None:
            finding = self._suited(self.name, self.suits)
            report["findings"].append(finding._asdict())
            report["usable"] = report["usable"] and finding.level == "ok"
        return report

    def _suited(self, source: str, reference: str) -> Finding:
        """Whether a recipe, or a target, can read the data."""
        from foredraft.forecast import context, forecaster

        try:
            dataset = data.load(source, missing=self.missing, reading=self.reading)
            if reference.endswith(".json"):
                context.contexts_of(dataset, forecaster.reads_of(Path(reference)), source=source)
                return Finding("ok", f"{reference} can forecast from it")
            config = bank.open_model(
                bank.find(reference, kind="target", storage=self.storage)
            ).config
            found = dataset.windows("train", context=config.context, horizon=config.patch)
            return Finding("ok", f"target {reference} has {len(found):,} training windows in it")
        except data.DataError as error:
            return Finding("refused", f"not for {reference}: {error}")

    def show(self, result: Result) -> None:
        """Print the result for a person."""
        if self.action != "check":
            show(result)
            return
        for line in report_lines(result):
            print(line)

    def code(self, result: Result) -> int:
        """2 where a check says that the file, read with these flags, would be refused."""
        return 0 if result.get("usable", True) else 2


def report_lines(report: Result) -> list[str]:
    """What `data check` found, as lines that are read in ten seconds."""
    steps = f", a row every {report['step']}" if report["step"] else ", rows without times"
    zone = f" ({report['zone']})" if report["zone"] else ""
    kind = f"{report['series']} series" if report["series"] else f"{report['variates']} variates"
    span = f"{report['start']} to {report['end']}{zone}" if report["start"] else ""
    lines = [f"{report['file']}: {report['rows']:,} rows of {kind}{steps}"]
    lines += [f"{name:<10}{text}" for name, text in (("format", report["format"]), ("time", span))]
    lines += [f"{one['level']:<10}{Finding(**one).told()}" for one in report["findings"]]
    lines += [f"{'splits':<10}{_splits(report)}"]
    if report["seasonal_naive"] is not None:
        season = f"season {report['season']}" if report["season"] else "the last row again"
        error = f"errs by {report['seasonal_naive']:.3g} deviations in training ({season})"
        lines.append(f"{'naive':<10}seasonal naive {error}: a model must do better")
    return [line for line in lines if line.strip() not in ("format", "time")]


def _splits(report: Result) -> str:
    borders: dict[str, list[Any]] = report["borders"] or {}
    parts = []
    for name, rows in report["splits"].items():
        upto = f" to {borders[name][1]}" if name in borders and report["start"] else ""
        parts.append(f"{name} {rows:,} rows{upto}")
    return ", ".join(parts)
