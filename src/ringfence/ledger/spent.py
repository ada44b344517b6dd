"""Whether a detached sandbox has used up its processor time.

Its guest kills its commands then and waits for somebody on the host to see it, by the kernel's own
counter, and to write down why it ended.
"""

from ringfence.backends.base import Instance
from ringfence.errors import SandboxError


async def is_spent(instance: Instance) -> bool:
    """Whether a detached one used all of its `limits.cpu_time`; False where that cannot be
    measured, and for an attached one, which its holder ends and whose commands it tells why."""
    spec = instance.record.spec
    limit = spec.limits.cpu_time
    if limit is None or not spec.detached:
        return False
    try:
        usage = await instance.usage()
    except SandboxError:
        return False
    return usage is not None and (usage.cpu_seconds or 0.0) >= limit
