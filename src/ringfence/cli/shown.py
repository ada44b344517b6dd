"""Verbs and groups of verbs whose `--help` shows what is typed."""

from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Verb(TyperCommand):
    """A verb. What its arguments are called says by itself which may be left out or repeated."""

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


class Group(TyperGroup):
    """A group of verbs."""

    def get_params(self, ctx: Any) -> Any:
        """Its parameters."""
        return _typed(super().get_params(ctx))


def _flowing(paragraph: str) -> str:
    example = "$ " if paragraph.startswith("    ") else ""
    return example + " ".join(paragraph.split())


def _typed(parameters: Any) -> Any:
    """The same; nothing is typed after a flag, so that it has no type."""
    for one in parameters:
        if getattr(one, "is_bool_flag", False):
            one.metavar = ""
    return parameters
