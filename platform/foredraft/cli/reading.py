"""Flags of every verb that reads data: how its files are read, and what is done about holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import FlagCreatePairsOff

from foredraft.cli.common import Words, flat
from foredraft.data.reading import Missing, Reading
from foredraft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReadsData:
    """What every verb takes that reads data; what is left out is found in the file."""

    missing: Missing = "refuse"
    """what to do about missing cells and rows: refuse the data, skip the windows that reach over
    them, or fill them by interpolation or from the seasons beside"""
    time: str | None = None
    """column of the time; none where there is none"""
    columns: Words = ()
    """variates, in this order"""
    ignore: Words = ()
    """columns that are no variates"""
    sep: str | None = None
    """between fields: a character, tab or space"""
    decimal: Literal[".", ","] | None = None
    """sign before decimals"""
    na: Words = ()
    """what stands where a value is missing"""
    dayfirst: FlagCreatePairsOff[bool] = False
    """11/02/2024 is the 11th of February"""
    monthfirst: FlagCreatePairsOff[bool] = False
    """11/02/2024 is the 2nd of November"""
    timezone: str | None = None
    """zone of times that name none, such as Europe/Berlin; of others, the one to tell them in"""
    step: str | None = None
    """time between two rows: h, 15min, B, W-FRI, MS, ME, QE, YE"""

    @property
    def given(self) -> dict[str, Any]:
        """`missing` and `reading` of a stage or an evaluation, as far as flags give them."""
        reading = self.reading.model_dump(mode="json", exclude_defaults=True)
        missing = {"missing": self.missing} if self.missing != "refuse" else {}
        return missing | ({"reading": reading} if reading else {})

    @property
    def reading(self) -> Reading:
        """How the files are to be read.

        Raises:
            ConfigError: two flags contradict each other, or one is empty.
        """
        if self.dayfirst and self.monthfirst:
            raise ConfigError("--dayfirst and --monthfirst are both given: keep one")
        for flag in ("sep", "time", "timezone", "step"):
            if getattr(self, flag) == "":
                raise ConfigError(f"--{flag} is empty: give it a value, or leave it out")
        return Reading(
            time=self.time,
            columns=flat(self.columns) or None,
            ignore=flat(self.ignore),
            sep=self.sep,
            decimal=self.decimal,
            na=flat(self.na),
            dayfirst=self.dayfirst or (False if self.monthfirst else None),
            timezone=self.timezone,
            step=self.step,
        )
