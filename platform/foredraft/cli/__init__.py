"""The command `foredraft`."""

from foredraft.cli.main import main

__all__ = ["main"]
