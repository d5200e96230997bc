"""The program `bartizan`: whatever ends a command, from its first import on, becomes an exit code."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 0 done, 1 failed, 2 wrong use, 3 refused by the space contract, 4 unreachable, 130 broken
    off by Ctrl-C, 141 nobody reads the output any more."""
    try:
        from bartizan_connector.commands.program import run  # here: Ctrl-C may come while it is being imported

        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything was begun\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
