"""Ending a command early: what a scheduler, a closing terminal or `ray job stop` sends is Ctrl-C.

    treat_as_ctrl_c()

Ctrl-C is what every verb can end by: claims are given back, what was reported is kept, and one line
says how to go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from rich.console import Console

from foredraft.redaction import redacted


def treat_as_ctrl_c() -> None:
    """Nothing; from now on SIGTERM and SIGHUP do in this process what SIGINT does.

    One that is ignored stays so, as under `nohup`. Once more after Ray was joined: it puts a
    handler of its own. Signals belong to the main thread; any other changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextlib.contextmanager
def ctrl_c_kept() -> Iterator[None]:
    """What SIGINT does is the same after the block: Tune leaves a handler that only takes note."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def end_at_once(line: str) -> NoReturn:
    """Never comes back: the line is said, and the process ends with 1, whatever it waits for.

    For what cannot be interrupted, such as Ray's own calls to a cluster that has gone.
    """
    with contextlib.suppress(OSError, ValueError):  # of a reader who has left
        console = Console(stderr=True)
        if console.is_terminal:  # a bar has hidden it
            console.show_cursor()
        print(f"foredraft: {redacted(line)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # a shell's background job ignores SIGINT, and still is to end
        raise KeyboardInterrupt
    handler(number, frame)
