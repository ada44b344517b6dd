"""Whose name commands run in."""

from collections.abc import Iterable

from ringfence.errors import InvalidSpecError
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec
from ringfence.spec.sandbox import check_user

RESERVED_IDS = (65501, 65502)
"""The guest's own uid and gid, and the uid it borrows while it signals: no command has one of these
as its uid or as a group."""

_ORDINARY = 1000


def is_root(user: str) -> bool:
    """Whether a user as a spec has it is root by name or number."""
    name = user.partition(":")[0]
    return name == "root" or (name.isdecimal() and int(name) == 0)


def is_reserved(user: str) -> bool:
    """Whether a user as a spec has it is the guest's own, or in its group."""
    return are_reserved(int(part) for part in user.split(":") if part.isdecimal())


def are_reserved(ids: Iterable[int], first: int = RESERVED_IDS[0]) -> bool:
    """Whether one of a command's uids and gids is the guest's. first: the guest's own."""
    return not {first, first + 1}.isdisjoint(ids)


def choose_user(request: SandboxSpec, facts: Facts) -> str:
    """The request's user, else the image's when not root, else the repository's owner, as the
    request maps it, when not root, else 1000. InvalidSpecError when the image's user is no user."""
    if request.user is not None:
        return request.user
    if facts.image is not None and facts.image.user:
        try:
            user = check_user(facts.image.user)
        except ValueError as error:
            raise InvalidSpecError(
                f"user: the image's is {facts.image.user!r}: {error}; name a user", op="resolve"
            ) from None
        if not is_root(user) and not is_reserved(user):
            return user
    owner, group = facts.repository_uid, facts.repository_gid
    if request.repository is not None and request.repository.owner is not None:
        mapped = [int(part) for part in request.repository.owner.split(":")]
        owner, group = mapped[0], mapped[-1]
    if owner and owner <= 65535 and owner not in RESERVED_IDS:
        if not group or group > 65535 or group in RESERVED_IDS:
            return str(owner)
        return f"{owner}:{group}"
    return str(_ORDINARY)
