"""What a sandbox's commands tell its event bus: that they start, how they end, what they met."""

from ringfence.events import ExecEnded, ExecStarted
from ringfence.guest.execs import Exec
from ringfence.guest.request import Exit
from ringfence.sandbox.commands import Prepared
from ringfence.sandbox.context import Context
from ringfence.sandbox.ending import result
from ringfence.sandbox.hits import Hits
from ringfence.spec import ExecResult


class Announcing:
    """Publishes the start and the end of the commands of one sandbox."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.hits = Hits(context)

    def started(self, prepared: Prepared) -> None:
        """It was sent, or is about to be."""
        context = self._context
        if not context.bus.heard:
            return
        context.bus.publish(
            ExecStarted(
                sandbox_id=context.id,
                args=prepared.args,
                user=prepared.user,
                cwd=str(prepared.request.cwd),
            )
        )

    def ended(self, outcome: ExecResult, *, collected: bool = True) -> None:
        """It ended so. collected: as `Hits.ended` has it."""
        context = self._context
        if context.bus.heard:
            context.bus.publish(
                ExecEnded(
                    sandbox_id=context.id,
                    args=outcome.args,
                    reason=str(outcome.reason),
                    exit_code=outcome.exit_code,
                    signal=outcome.signal,
                    duration=outcome.duration,
                    stdout_total=outcome.stdout_total,
                    stderr_total=outcome.stderr_total,
                )
            )
        self.hits.ended(outcome, collected=collected)

    def exited(self, started: Exec, prepared: Prepared) -> None:
        """A spawned one ended, unless it was forgotten."""
        ending = started.ending
        if isinstance(ending, Exit):
            outcome = result(prepared.args, ending, prepared.cpu_limit)
            self.ended(outcome, collected=False)
