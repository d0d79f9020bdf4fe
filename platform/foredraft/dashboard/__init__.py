"""The report's figures, live: what a study has come to, while it runs and after."""

from foredraft.dashboard.server import serve

__all__ = ["serve"]
