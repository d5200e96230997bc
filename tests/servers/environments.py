"""Environments beside the project's own, as the Makefile makes them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MAKE_SECONDS = 600.0


def made(target: str) -> str:
    """Make it where it is missing; what went wrong, empty: nothing."""
    command = ["make", "--no-print-directory", target, f"PYTHON={sys.executable}"]
    ended = subprocess.run(command, cwd=ROOT, timeout=_MAKE_SECONDS, capture_output=True, text=True, check=False)
    return f"make {target} failed: {ended.stderr.strip()[-2000:]}" if ended.returncode else ""
