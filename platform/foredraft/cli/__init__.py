"""The command `foredraft`."""

from foredraft.cli.command import main

__all__ = ["main"]
