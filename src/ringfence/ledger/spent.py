"""Whether a sandbox has used up its processor time.

The guest of a detached one kills its commands then and waits for somebody on the host to see it,
by the kernel's own counter, and to write down why it ended.
"""

from ringfence.backends.base import Instance
from ringfence.errors import SandboxError


async def is_spent(instance: Instance) -> bool:
    """Whether it used all of its `limits.cpu_time`; False where that cannot be measured."""
    limit = instance.record.spec.limits.cpu_time
    if limit is None:
        return False
    try:
        usage = await instance.usage()
    except SandboxError:
        return False
    return usage is not None and (usage.cpu_seconds or 0.0) >= limit
