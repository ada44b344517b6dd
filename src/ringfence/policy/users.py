"""Whose name commands run in."""

from ringfence.errors import InvalidSpecError
from ringfence.policy.facts import Facts
from ringfence.spec import SandboxSpec
from ringfence.spec.sandbox import check_user

RESERVED_UIDS = (65501, 65502)
"""The guest's own uid, and the one it borrows while it signals: no command can have them."""

_ORDINARY = 1000


def is_root(user: str) -> bool:
    """Whether a user as a spec has it is root by name or number."""
    name = user.partition(":")[0]
    return name == "root" or (name.isdecimal() and int(name) == 0)


def is_reserved(user: str) -> bool:
    """Whether a user as a spec has it is the guest's own."""
    name = user.partition(":")[0]
    return name.isdecimal() and int(name) in RESERVED_UIDS


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
    if owner and owner <= 65535 and owner not in RESERVED_UIDS:
        return str(owner) if not group or group > 65535 else f"{owner}:{group}"
    return str(_ORDINARY)
