"""Repository workspaces: what of a repository goes in, and what comes out."""

from ringfence.workspace.changes import Change, Changes, Side
from ringfence.workspace.patch import Patch
from ringfence.workspace.plan import Plan, plan
from ringfence.workspace.prepare import prepare
from ringfence.workspace.prepared import Binding, Prepared, attach, clean
from ringfence.workspace.secrets import SECRETS
from ringfence.workspace.sources import check_root, is_url

__all__ = [
    "SECRETS",
    "Binding",
    "Change",
    "Changes",
    "Patch",
    "Plan",
    "Prepared",
    "Side",
    "attach",
    "check_root",
    "clean",
    "is_url",
    "plan",
    "prepare",
]
