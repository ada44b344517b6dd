"""Repository workspaces: what of a repository goes in, and what comes out."""

from ringfence.workspace.apply import apply
from ringfence.workspace.changes import Change, Changes, Side
from ringfence.workspace.clone import is_url
from ringfence.workspace.discard import discard
from ringfence.workspace.download import download
from ringfence.workspace.emptying import emptying
from ringfence.workspace.fork import fork
from ringfence.workspace.patch import Patch
from ringfence.workspace.plan import Plan, plan
from ringfence.workspace.prepare import prepare
from ringfence.workspace.prepared import Binding, Prepared, attach, clean, is_left
from ringfence.workspace.secrets import SECRETS
from ringfence.workspace.snapshot import Snapshot, Snapshots
from ringfence.workspace.sources import check_root
from ringfence.workspace.writable import For

__all__ = [
    "SECRETS",
    "Binding",
    "Change",
    "Changes",
    "For",
    "Patch",
    "Plan",
    "Prepared",
    "Side",
    "Snapshot",
    "Snapshots",
    "apply",
    "attach",
    "check_root",
    "clean",
    "discard",
    "download",
    "emptying",
    "fork",
    "is_left",
    "is_url",
    "plan",
    "prepare",
]
