"""What the pages say can be followed: links, verbs, options, names and examples."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import ringfence
from ringfence.cli.app import tree
from ringfence.errors import SandboxError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`(ringfence [^`\n]+)`")
_LINE = re.compile(r"^(?:    |\$ )(ringfence .+)$", re.MULTILINE)
_TEST = re.compile(r"\b((?:\w+/)+test_\w+\.py)(?:::(test_\w+))?")
_VERB = re.compile(r"[a-z]+")
_OPTION = re.compile(r"--[a-z][a-z-]+")


def test_there_are_pages() -> None:
    assert len(PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    """Links within the repository, with the heading where one is named."""
    text = _BLOCK.sub("", page.read_text())
    broken = []
    for link in _LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    assert broken == []


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


def blocks(page: Path) -> list[str]:
    return [body for kind, body in _BLOCK.findall(page.read_text()) if kind == "python"]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_python_example_compiles_and_imports_what_exists(page: Path) -> None:
    for source in blocks(page):
        tree = compile(
            source, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ringfence"):
                check_import(str(node.module), [alias.name for alias in node.names])
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ringfence":
                part = (ROOT / "src" / "ringfence" / node.attr).is_dir()
                assert part or hasattr(ringfence, node.attr), node.attr


def check_import(module: str, names: list[str]) -> None:
    """The names are in the module, read as text where its framework need not be installed."""
    if module.startswith("ringfence.integrations."):
        source = ROOT / "src" / (module.replace(".", "/") + ".py")
        defined = {getattr(node, "name", "") for node in ast.parse(source.read_text()).body}
        assert set(names) <= defined
        return
    home = importlib.import_module(module)
    for name in names:
        if not hasattr(home, name):
            importlib.import_module(f"{module}.{name}")


def commands(page: Path) -> list[list[str]]:
    """What a page shows of our command line, one list of words each, up to `--`."""
    text = page.read_text()
    shown = _CODE.findall(_BLOCK.sub("", text)) + _LINE.findall(text)
    found = []
    for line in shown:
        found.append(shlex.split(re.split(r"  #| -- |\|", line)[0])[1:])
    return found


def known(words: list[str]) -> Any:
    """The command that words begin with, as the parser has it; None for no verb."""
    found: Any = typer.main.get_command(tree())
    while hasattr(found, "commands") and words and words[0] in found.commands:
        found = found.commands[words[0]]
        words = words[1:]
    return None if found.name in (None, "ringfence") else found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_verb_and_option_that_is_shown_exists(page: Path) -> None:
    wrong = []
    for words in commands(page):
        if not words or not _VERB.fullmatch(words[0]):
            continue
        command = known(words)
        if command is None:
            wrong.append(words)
            continue
        options = {name for one in command.params for name in one.opts + one.secondary_opts}
        shown = {option for word in words for option in _OPTION.findall(word)}
        if not shown <= options | {"--help"}:
            wrong.append([*words, *sorted(shown - options)])
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    """As a path from the root, or from tests/; of a function as well."""
    missing = []
    for name, function in _TEST.findall(page.read_text()):
        places = [ROOT / name, ROOT / "tests" / name]
        files = [place for place in places if place.is_file()]
        if not files or (function and f"def {function}(" not in files[0].read_text()):
            missing.append(f"{name}::{function}")
    assert missing == []


def test_every_verb_is_in_the_reference() -> None:
    """docs/cli.md has a row for each."""
    text = (ROOT / "docs" / "cli.md").read_text()
    root: Any = typer.main.get_command(tree())
    for name, command in root.commands.items():
        for verb in [f"{name} {one}" for one in getattr(command, "commands", [])] or [name]:
            assert f"| `ringfence {verb}" in text, verb


def classes(cls: type[SandboxError]) -> list[type[SandboxError]]:
    """It and all below it that `ringfence.errors` defines."""
    below = [one for sub in cls.__subclasses__() for one in classes(sub)]
    return [one for one in [cls, *below] if one.__module__ == "ringfence.errors"]


def test_the_table_of_errors_is_the_tree() -> None:
    """docs/errors.md has a row for each class with its code, its category and whether to retry."""
    rows = (ROOT / "docs" / "errors.md").read_text().splitlines()
    for cls in classes(SandboxError):
        [row] = [row for row in rows if re.match(rf"\| (&nbsp;)*`{cls.__name__}` \|", row)]
        _, _, code, category, retryable, *_ = (cell.strip() for cell in row.split("|"))
        assert code == f"`{cls.code}`"
        assert category == str(cls.category)
        assert (retryable == "yes") is cls.retryable


def test_the_table_of_reasons_is_the_enum() -> None:
    """docs/errors.md has a row for each reason why a command ended."""
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text.partition("## How a command ended")[2], re.MULTILINE)
    assert sorted(rows) == sorted(ringfence.Reason)
