"""Who writes: a process, known by name, and whether it may still live."""

import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

SILENCE = 300.0
"""A writer that has not written for so many seconds may be succeeded although it may still live."""

_live: set[str] = set()
"""The tokens of this process that were not let go."""
_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One writer."""

    token: str
    pid: int
    host: str
    begun: str
    """When its process began, as the system counts; two processes of one number differ in it."""
    since: str
    seen: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def may_live(self, now: float, silence: float) -> bool:
        """Whether it must be taken to hold what it holds: it has not ended, and was not silent for too long."""
        if now - self.seen > silence:
            return False
        if self.host != socket.gethostname():
            return True
        if self.pid == os.getpid():
            return self.token in _live
        return _begun(self.pid) == self.begun and _is_running(self.pid)


def ours(token: str, since: str = "") -> Holder:
    """This process, under a token of its own, as of now; from here on it lives until `let_go`."""
    with _lock:
        _live.add(token)
    return Holder(
        token=token,
        pid=os.getpid(),
        host=socket.gethostname(),
        begun=_begun(os.getpid()),
        since=since or datetime.now(UTC).isoformat(timespec="seconds"),
        seen=time.time(),
    )


def let_go(token: str) -> None:
    """What this token held it holds no more."""
    with _lock:
        _live.discard(token)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _begun(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty where the system does not tell, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
