/* Execs whose supervisor is gone, and the orphans that such supervisors leave. */
#include "exec.h"

#include <signal.h>

enum { HUNT_MS = 1, LONG_HUNT_MS = 20, LONG_AFTER = 100, USER_AFTER = 200 /* rounds */ };

static struct timer hunt;
static u32 rounds;

static void send_lost(struct exec *exec)
{
	if (exec->attached)
		send_fail(the_conn, exec->id, EIO, STAGE_LIMITS,
			  exec->begun ? "its supervisor was lost as it started the command" : "its supervisor was lost before the start");
	exec_free(exec);
}

/* Where one of its user's keeps them from ending, as a tracer does who does not wait for them. Each exec has its own time:
 * another's may be held up for ever. */
static void kill_users(void)
{
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec->lost && !exec->over && ++exec->hunted == USER_AFTER && signal_uid(exec->uid, SIGKILL))
			exec_collateral(exec->uid, exec);
}

/* The orphans of lost supervisors are the agent's own children now. */
static void hunt_orphans(struct timer *timer)
{
	children_reap();
	int left = family_signal(SIGKILL, child_known);
	if (left > 0) {
		kill_users();
		timer_set(timer, ++rounds < LONG_AFTER ? HUNT_MS : LONG_HUNT_MS, hunt_orphans);
		return;
	}
	rounds = 0;
	for (struct exec *exec = execs, *next; exec; exec = next) {
		next = exec->next;
		if (!exec->lost || exec->over)
			continue;
		if (!exec->started) {
			send_lost(exec);
			continue;
		}
		if (!exec->main_ended)
			exec->status = SIGKILL;
		exec->main_ended = exec->killed = true;
		exec->proof = left == 0 && features() & FEATURE_SUBREAPER ? PROOF_ECHILD : PROOF_NONE;
		exec_settle(exec);
	}
}

void exec_orphan_ended(pid_t pid, int status, const struct usage *usage)
{
	if (own_pid_namespace) /* which an exec's pid is of: this one is the namespace's first, with all its commands' usage */
		return;
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec->lost && !exec->main_ended && exec->pid == (u32)pid) {
			exec->main_ended = true;
			exec->status = status;
			exec->usage = usage->rusage;
			exec_judge(exec, exec->grace_ms > 0);
		}
}

void exec_hunt(void) { timer_set(&hunt, 0, hunt_orphans); }

void exec_supervisor_ended(struct exec *exec, const struct told *last, bool well)
{
	bool known = exec->main_ended && (!exec->killing || exec->killed);
	exec->supervisor = NULL;
	kill_all_reported(exec, 0);
	if (!well || !known)
		exec_hunt();
	if (known || exec->over) {
		if (exec->removed)
			exec_free(exec);
		return;
	}
	exec_recover(exec, &last->report);
	exec->begun = last->begun;
	if (!exec->reason && !exec->main_ended)
		exec->reason = REASON_LOST;
	exec->lost = exec->killing = true;
	timer_clear(&exec->timeout);
	if (!exec->main_ended)
		exec->wall_us = now_us() - exec->begun_us;
}
