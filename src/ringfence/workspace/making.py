"""What a workspace is made of and for: the same for every mode."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.errors import UnsupportedError
from ringfence.spec import Repository
from ringfence.workspace import history
from ringfence.workspace.ownership import Ownership
from ringfence.workspace.plan import Plan, build_history
from ringfence.workspace.prepared import Binding, Prepared, Strategy
from ringfence.workspace.writable import For


@dataclass(slots=True)
class Making:
    """One workspace on its way. found: what goes in. directory: ours, where it is made. stored: uid
    and gid that the original has; seen: those that commands see."""

    repository: Repository
    found: Plan
    directory: Path
    whom: For
    stored: tuple[int, int] = field(init=False)
    seen: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        status = self.found.source.root.stat()
        self.stored = status.st_uid, status.st_gid
        self.seen = self._wanted_owner()

    @property
    def maps(self) -> bool:
        """Whether files must appear with another owner than they have."""
        return self.seen != self.stored and self.whom.privileged

    @property
    def masks_modes(self) -> bool:
        """Whether files get other modes than they have."""
        return self.repository.file_mode is not None or self.repository.directory_mode is not None

    def ownership(self) -> Ownership:
        """How a copy is written."""
        return Ownership(
            owner=self.seen if self.maps else None,
            was=self.stored[0] if self.maps else None,
            file_mode=self.repository.file_mode,
            directory_mode=self.repository.directory_mode,
        )

    def prepared(self, strategy: Strategy, binds: Iterable[Binding] = ()) -> Prepared:
        """What is there to be mounted."""
        return Prepared(
            directory=self.directory,
            strategy=strategy,
            mode=self.repository.mode,
            mount_point=self.repository.mount_point,
            binds=tuple(binds),
            env=environment(self.repository),
            original=None if self.found.source.cloned else self.found.source.original,
            warnings=(*self.found.warnings, *self._of_others()),
        )

    def _of_others(self) -> Iterator[str]:
        """Where a daemon shows files as they are stored: that commands are not their owner."""
        shows = self.whom.volumes and not self.whom.privileged
        if shows and self.repository.mode != "ro" and self.whom.uid != self.seen[0]:
            yield (
                f"commands run as uid {self.whom.uid} and may not write what is uid"
                f" {self.seen[0]}'s: only root can map owners"
            )

    def build_history(self, target: Path, owner: tuple[int, int]) -> bool:
        """Make the repository that goes in at `target`, a path called .git, belonging to `owner`
        where we may say so; False when there is none."""
        if not build_history(self.found, target):
            return False
        if self.whom.privileged:
            for path in history.walk_all(target):
                os.chown(path, *owner, follow_symlinks=False)
        return True

    def _wanted_owner(self) -> tuple[int, int]:
        asked = self.repository.owner
        if asked is None:
            return (self.whom.uid, self.whom.gid) if self.whom.privileged else self.stored
        if not self.whom.privileged and int(asked.split(":")[0]) != os.geteuid():
            raise UnsupportedError("only root can map owners", op="workspace")
        uid, _, gid = asked.partition(":")
        return int(uid), int(gid or uid)


def environment(repository: Repository) -> dict[str, str]:
    """Git's settings for the commands inside, as variables."""
    identity = repository.git
    return history.settings(
        {
            "user.name": identity.user_name,
            "user.email": identity.user_email,
            "init.defaultBranch": identity.default_branch,
            "safe.directory": repository.mount_point,
            "core.trustctime": "false",
            "core.checkStat": "minimal",
            "gc.auto": "0",
            **identity.config,
        }
    )
