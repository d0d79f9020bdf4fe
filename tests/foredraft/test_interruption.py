"""Claims about ending early: a scheduler's signal and a closed terminal's are Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from foredraft.interruption import ctrl_c_kept

CODE = """
import signal, sys, time
from foredraft.interruption import treat_as_ctrl_c
for number in sys.argv[1:]:
    signal.signal(int(number), signal.SIG_IGN)
treat_as_ctrl_c()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


def ended(*sent: signal.Signals, ignored: tuple[signal.Signals, ...] = ()) -> str:
    """What a process says that was sent these signals."""
    command = [sys.executable, "-c", CODE, *(str(int(number)) for number in ignored)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for number in sent:
        process.send_signal(number)
    told, _ = process.communicate(timeout=30)
    return told.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_every_polite_end_is_ctrl_c(number: signal.Signals) -> None:
    assert ended(number) == "interrupted"


def test_ctrl_c_is_what_it_was_after_a_library_has_taken_note_of_it_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_kept():
        signal.signal(signal.SIGINT, lambda number, frame: None)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_shell_runs_beside_itself_ends_too_though_it_ignores_ctrl_c() -> None:
    assert ended(signal.SIGINT, signal.SIGTERM, ignored=(signal.SIGINT,)) == "interrupted"


def test_a_closed_terminal_does_not_end_what_runs_under_nohup() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(int(signal.SIGHUP))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0].strip() == "interrupted"
