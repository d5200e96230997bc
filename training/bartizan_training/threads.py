"""How many threads torch trains with on a CPU: as many as there are idle cores, and the same again when a run goes on.

A step waits for its slowest thread. One thread more than there are idle cores is no faster, and on cores that other
programs keep busy it makes a step take several times as long (docs/decisions/023).
"""

import os
from pathlib import Path

import torch
from accelerate import Accelerator

from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.console import err
from bartizan_connector.base.cores import available_cores, idle_cores

_BY_DEFAULT = torch.get_num_threads()
_ASKED_BY = "OMP_NUM_THREADS"


def settle(accelerator: Accelerator, noted: Path, asked: int = 0) -> None:
    """Set the number of threads, note it in the run, and say it. `asked` goes first; then what the run began with, for
    the same bits; then what the caller or the environment has set; then the idle cores, shared by the processes."""
    if accelerator.device.type != "cpu":
        return
    if accelerator.is_main_process:
        chosen = asked or _read(noted) or _set_before() or max(1, idle_cores() // accelerator.num_processes)
        if chosen != _read(noted):
            write_aside(noted, f"{chosen}\n")
    accelerator.wait_for_everyone()
    threads = _read(noted) or 1
    torch.set_num_threads(threads)
    if accelerator.is_main_process:
        err.print(f"training with {_told(threads)}", markup=False)


def _told(threads: int) -> str:
    cores, plural = available_cores(), "s" * (threads > 1)
    if threads >= cores:
        return f"{threads} thread{plural}"
    return f"{threads} thread{plural}, of {cores} cores (--threads chooses another number)"


def _set_before() -> int:
    now = torch.get_num_threads()
    return now if now != _BY_DEFAULT or os.environ.get(_ASKED_BY) else 0


def _read(noted: Path) -> int:
    """The number that the run has noted; 0: none."""
    try:
        return max(0, int(noted.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0
