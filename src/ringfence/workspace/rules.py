"""What the spec of a repository says of a path by its name: hidden, included, or neither."""

from collections.abc import Iterable

from ringfence.errors import InvalidSpecError
from ringfence.spec import Repository
from ringfence.spec.paths import lies_in
from ringfence.workspace.patterns import Patterns
from ringfence.workspace.secrets import SECRETS


class Rules:
    """The patterns of one repository: include, exclude and, whatever the case of a name, secrets.

    InvalidSpecError for one of the spec that matches no path: what it was to hide would be seen.
    """

    def __init__(self, repository: Repository) -> None:
        for pattern in (*repository.include, *repository.exclude):
            if not pattern.startswith("#") and not Patterns([pattern]):
                raise InvalidSpecError(
                    f"no path matches the pattern {pattern!r}: write it as in .gitignore",
                    op="workspace",
                )
        self.subpath = repository.subpath
        self.gitignore = repository.gitignore
        self._secrets = Patterns(SECRETS if repository.secrets_excluded else ())
        self._exclude = Patterns(repository.exclude)
        self._include = Patterns(repository.include)

    def reason(self, path: str, name: str, is_directory: bool) -> str | None:
        """Why `path` is hidden; None when no pattern of the spec hides it."""
        verdict = self._exclude.verdict(path, name, is_directory)
        if verdict is False:
            return None
        if self._secrets.verdict(path.casefold(), name.casefold(), is_directory):
            return "usually holds secrets"
        return "excluded" if verdict else None

    def included(self, path: str, name: str, is_directory: bool, above: bool) -> bool:
        """Whether `include` and `subpath` name it, or named (`above`) a directory over it."""
        if above:
            return True
        if self.subpath is not None and not lies_in(path, self.subpath):
            return False
        return not self._include or bool(self._include.verdict(path, name, is_directory))

    @property
    def narrows(self) -> bool:
        """Whether only what is included is visible."""
        return bool(self._include) or self.subpath is not None


def is_hidden(paths: Iterable[str], repository: Repository) -> list[str]:
    """Those of `paths` (files of a commit, say) that the patterns of the spec hide."""
    rules = Rules(repository)
    decided: dict[str, tuple[bool, bool]] = {"": (False, not rules.narrows)}
    hidden = []
    for path in paths:
        names = path.split("/")
        for length in range(1, len(names) + 1):
            part = "/".join(names[:length])
            if part in decided and length < len(names):
                continue
            above = decided["/".join(names[: length - 1])]
            is_directory = length < len(names)
            name = names[length - 1]
            out = above[0] or rules.reason(part, name, is_directory) is not None
            within = rules.included(part, name, is_directory, above[1])
            if is_directory:
                decided[part] = (out, within)
            elif out or not within:
                hidden.append(path)
    return hidden
