"""The command line: one file per verb. The only part of Ringfence that prints."""

import sys

USAGE = 2
FAILED = 125
INTERRUPTED = 130
UNREAD = 141
TERMINATED = 143


def main() -> None:
    """The `ringfence` command."""
    try:
        from ringfence.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while it still loads
        code = INTERRUPTED
    sys.exit(code)
