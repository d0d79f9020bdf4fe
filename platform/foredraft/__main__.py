"""`python -m foredraft` is the command `foredraft`."""

from foredraft.cli import main

main()
