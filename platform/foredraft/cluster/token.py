"""The token that a cluster asks for: whoever has it may run code there."""

from __future__ import annotations

import os
from pathlib import Path

FILE = Path("~/.ray/auth_token")
"""Where Ray keeps it."""


def expect() -> None:
    """Nothing; where there is a token, Ray sends it from now on.

    To be called before anything of Ray is imported: it reads this once.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or FILE.expanduser().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
