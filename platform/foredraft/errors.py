"""What a command tells in one line: a mistake of the user's, or why it ended early."""

from __future__ import annotations

from speculation import InvalidInput


class ConfigError(InvalidInput):
    """A user's mistake in a configuration: one line that names field, value and remedy."""


class Stopped(RuntimeError):
    """What ended before its time, and why, in one line; what was reported or saved is kept."""
