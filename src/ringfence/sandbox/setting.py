"""What the sandbox itself says of each of its commands, as it stands when that one is sent."""

from ringfence.sandbox.commands import Command, Setting, changed, rlimits
from ringfence.sandbox.context import Context


class Settings:
    """The settings of one sandbox's commands; limits are packed again only when they change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rlimits = rlimits(context.spec.limits.ulimits)
        self._rlimits_of = context.spec.limits

    async def of(self, command: Command) -> Setting:
        """For one command. InvalidSpecError, and what a user that cannot be had raises."""
        context = self._context
        user = context.default_user
        if command.user is not None:
            user = await context.user(command.user)
        env = context.env.packed(user.home, changed(command.env))
        spec = context.spec
        if spec.limits is not self._rlimits_of:
            self._rlimits, self._rlimits_of = rlimits(spec.limits.ulimits), spec.limits
        return Setting(
            env,
            context.cwd,
            user,
            spec.limits,
            self._rlimits,
            spec.security.groups,
            context.ceiling.limits,
            ulimited="ulimits" in context.features.limits,
        )
