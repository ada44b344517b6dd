"""The command line: one file per verb. The only part of Ringfence that prints."""

import sys


def main() -> None:
    """The `ringfence` command."""
    from ringfence.cli.app import run

    sys.exit(run(sys.argv[1:]))
