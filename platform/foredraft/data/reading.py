"""How a table is to be read, where what it shows by itself is not enough.

    reading = Reading(sep=";", decimal=",", time="ts", timezone="Europe/Berlin")
    dataset = load("smard.csv", reading=reading)

The same fields stand under `reading:` in YAML and as flags (`--sep`, `--decimal`) of every verb
that reads data. What is left out is found in the file, and told by `foredraft data check my.csv`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Missing = Literal["refuse", "skip", "interpolate", "seasonal"]
"""What to do about cells and rows that are missing: refuse the data; leave them, so that no window
reaches across one; fill them linearly in time; or fill them by the same time of the neighbouring
seasons (days, where rows are hours)."""


class Reading(BaseModel):
    """How a table is to be read; every field may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str | None = None
    """column of the time; `none` where there is none"""
    columns: tuple[str, ...] | None = None
    """variates, in this order; of a long table its series"""
    ignore: tuple[str, ...] = ()
    """columns that are no variates"""
    sep: Annotated[str, Field(min_length=1)] | None = None
    """between fields: a character, `tab` or `space`"""
    decimal: Literal[".", ","] | None = None
    na: tuple[str, ...] = ()
    """what stands where a value is missing, beside an empty cell, NA and NaN"""
    dayfirst: bool | None = None
    """whether 11/02/2024 is the 11th of February"""
    timezone: str | None = None
    """of times that name none, such as Europe/Berlin; of others, the zone in which they are told"""
    step: str | None = None
    """time between two rows, as pandas writes it: h, 15min, B, W-FRI, MS, ME, QE, YE"""

    @property
    def flags(self) -> tuple[str, ...]:
        """The words of a command line that say the same."""
        words: list[str] = []
        for name, value in self.model_dump(exclude_defaults=True).items():
            if isinstance(value, bool):
                words.append(f"--{name}" if value else "--monthfirst")
            else:
                words += [f"--{name}", *([value] if isinstance(value, str) else value)]
        return tuple(words)
