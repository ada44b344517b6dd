"""The tree of verbs, and a command line run."""

import signal
from types import FrameType

import typer

from ringfence.cli import FAILED, INTERRUPTED, TERMINATED, output, verbs
from ringfence.cli.exits import exits, foreign
from ringfence.cli.shown import Group

_EPILOG = (
    "Exit codes of run and exec: the command's own; 124 timeout, 137 out of memory, 125 when"
    " Ringfence itself failed."
)


def tree(only: str | None = None) -> typer.Typer:
    """All verbs. only: load none but this one, or its group."""
    app = typer.Typer(
        name="ringfence",
        cls=Group,
        help="Run commands that nobody vouches for in a place of their own.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for panel, modules in verbs.PANELS.items():
        for name, module in modules.items():
            if only in (None, name):
                function = exits(verbs.verb(name, module))
                app.command(name, cls=verbs.kind(name), rich_help_panel=panel)(function)
    for name, panel in verbs.GROUPS.items():
        if only in (None, name):
            app.add_typer(verbs.group(name), cls=Group, name=name, rich_help_panel=panel)
    return app


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        output.line(f"ringfence {installed('ringfence')}")
        raise typer.Exit


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Errors are printed, never a traceback."""
    output.complete()
    terminated = _terminable()
    only = arguments[0] if arguments and arguments[0] in verbs.NAMES else None
    try:
        tree(only)(args=arguments, prog_name="ringfence")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
        return TERMINATED if terminated and code == INTERRUPTED else code
    except KeyboardInterrupt:
        return TERMINATED if terminated else INTERRUPTED
    except (OSError, RuntimeError) as error:
        failure = foreign(error)
        if failure is None:
            raise
        if isinstance(error, OSError):
            output.silence()
        output.note(output.escape_text(str(failure)))
        return FAILED
    return 0


def _terminable() -> list[int]:
    """Have a SIGTERM end a verb as Ctrl-C would now, its clearing up included; what this returns
    holds it then."""
    came: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        came.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        (interrupt if callable(interrupt) else signal.default_int_handler)(number, frame)

    signal.signal(signal.SIGTERM, terminate)
    return came
