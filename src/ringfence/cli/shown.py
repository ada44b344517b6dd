"""Verbs and groups of verbs whose `--help` shows what is typed, and what is told of a command line
that cannot be read."""

from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ringfence.cli import UNREAD, output
from ringfence.cli.pairs import misuse

_UsageError: Any = typer.BadParameter.__base__
"""Typer has it in one module or another, by its version."""


class Verb(TyperCommand):
    """A verb. What its arguments are called says by itself which may be left out or repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what follows its name. What cannot be read is told by who called this, and with the
        verb's --json in a document, too."""
        given = list(args)
        try:
            read: list[str] = super().parse_args(ctx, args)
        except _UsageError as error:
            if self._json_in(given, ctx):
                _tell(error.format_message())
            raise
        return read

    def _json_in(self, given: list[str], ctx: Any) -> bool:
        """Whether --json is an option of this verb there, as far as it can be read."""
        leniently = {"resilient_parsing": True, "ignore_unknown_options": True}
        as_read = self.make_context(ctx.info_name, given, parent=ctx.parent, **leniently)
        return bool(as_read.params.get("json"))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write its help: each paragraph as wide as the terminal, each example on a line."""
        paragraphs = cleandoc(self.help or "").split("\n\n")
        self.help = "\n\n".join(map(_flowing, paragraphs))
        super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> Any:
        """Its parameters."""
        return _typed(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows its name."""
        parameters = self.get_params(ctx)
        arguments = [one.metavar for one in parameters if one.param_type_name == "argument"]
        return ["[OPTIONS]", *arguments]


class OfCommand(Verb):
    """A verb whose arguments end with a command. Options may stand until that one's name; what
    follows the name is the command's."""

    def make_parser(self, ctx: Any) -> Any:
        """What reads its options: among our own arguments, such as an ID, and no further."""
        parser: Any = super().make_parser(ctx)
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        parser.allow_interspersed_args = _Times(len(arguments) - 1)
        return parser


class _Times:
    """True as often as it says. The parser asks at each word that is no option whether options may
    follow."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left >= 0


class Group(TyperGroup):
    """A group of verbs."""

    def get_params(self, ctx: Any) -> Any:
        """Its parameters."""
        return _typed(super().get_params(ctx))


def _tell(message: str) -> None:
    try:
        output.document({"error": misuse(message).to_dict()})
    except BrokenPipeError:
        output.silence()
        raise typer.Exit(UNREAD) from None


def _flowing(paragraph: str) -> str:
    example = "$ " if paragraph.startswith("    ") else ""
    return example + " ".join(paragraph.split())


def _typed(parameters: Any) -> Any:
    """The same; nothing is typed after a flag, so that it has no type."""
    for one in parameters:
        if getattr(one, "is_bool_flag", False):
            one.metavar = ""
    return parameters
