"""Prints the demo's numbered steps on stdout, and runs their commands: each is shown as typed, then run."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import typer
from rich.markup import escape

from bartizan_connector.base.console import complain, err, out
from bartizan_connector.base.errors import interruptible

_SECONDS_TO_END = 20.0


class Shell:
    """Counts the steps and runs their commands as processes of their own."""

    def __init__(self) -> None:
        self._steps = 0
        self._begun = time.monotonic()

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        out.print(f"\n[bold cyan]{self._steps}  {escape(title)}[/bold cyan]")

    def say(self, text: str, style: str = "") -> None:
        """One line of the story."""
        out.print(f"   {escape(text)}", style=style)

    def remark(self, text: str) -> None:
        """Say it on stderr."""
        err.print(text, markup=False, style="yellow")

    def run(self, *arguments: str | Path) -> None:
        """Show a command as a person would type it, and run it; when it fails, so does the demo, with its code."""
        out.print(f"   [bold]$ {escape(typed(arguments))}[/bold]")
        out.file.flush()
        command = [sys.executable, "-m", "bartizan_connector", *map(str, arguments)]
        with interruptible(
            "what is finished stays: go on by typing the commands that are shown, train with --resume; the demo itself "
            "begins anew"
        ):
            code = _ended(command)
        if code:
            complain(f"the demo stopped: the command above failed with exit code {code}")
            raise typer.Exit(code if code > 0 else 1)

    @property
    def elapsed(self) -> str:
        """Since the demo began."""
        minutes, seconds = divmod(round(time.monotonic() - self._begun), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _ended(command: list[str]) -> int:
    """The exit code of the process; Ctrl-C reaches it too, and it is given the time to end in good order."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()
            raise


def typed(arguments: Sequence[str | Path]) -> str:
    """The command as it works from the folder that the user is in."""
    return f"{program()} {shlex.join(map(str, arguments))}"


def program() -> str:
    """`bartizan` where the shell would find this installation's; else its path."""
    installed = Path(sys.executable).with_name("bartizan")
    found = shutil.which("bartizan")
    if found and Path(found).absolute() == installed.absolute():
        return "bartizan"
    return os.path.relpath(installed) if installed.exists() else f"{shlex.quote(sys.executable)} -m bartizan_connector"
