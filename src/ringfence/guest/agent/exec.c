/* The life of an exec, from EXEC to EXIT and beyond for a held one. */
#include "exec.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DRAIN_MS = 50, STUCK_MS = 1000, UNANSWERED_MS = 300, UNANSWERED_EMULATED_MS = 3000 };

struct exec *execs;

static void close_terminal(struct exec *exec)
{
	if (exec->terminal >= 0)
		close(exec->terminal);
	exec->terminal = -1;
}

static void answer_forget(struct exec *exec)
{
	if (exec->answering)
		send_done(the_conn, exec->id);
	exec->answering = false;
}

void exec_free(struct exec *exec)
{
	answer_forget(exec);
	kill_all_reported(exec, 0);
	close_terminal(exec);
	for (struct exec **at = &execs; *at; at = &(*at)->next)
		if (*at == exec) {
			*at = exec->next;
			break;
		}
	op_remove(&exec->op);
	timer_clear(&exec->timeout);
	timer_clear(&exec->drain);
	timer_clear(&exec->stuck);
	for (int i = 0; i < 2; i++) {
		stream_end(&exec->streams[i]);
		free(exec->streams[i].ring);
	}
	input_end(exec);
	if (exec->supervisor)
		exec->supervisor->exec = NULL;
	free(exec->args);
	free(exec);
}

/* ---- killing ---- */

/* A hostile user can stop a command between its identity and its execve, for which its supervisor waits. */
static void unanswered(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, stuck);
	if (exec->supervisor && !exec->killed)
		kill(exec->supervisor->child.pid, SIGKILL);
}

void exec_kill(struct exec *exec, u8 reason)
{
	if (exec->killing || !exec->supervisor)
		return;
	if (!exec->reason)
		exec->reason = reason;
	exec->killing = true;
	timer_clear(&exec->timeout);
	supervisor_tell(exec->supervisor, TELL_KILL, 0, false);
	timer_set(&exec->stuck, features() & FEATURE_SUBREAPER ? UNANSWERED_MS : UNANSWERED_EMULATED_MS, unanswered);
}

void exec_collateral(u32 uid, const struct exec *cause)
{
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec != cause && exec->uid == uid && !exec->main_ended && !exec->reason)
			exec->reason = REASON_COLLATERAL;
}

static void grace_over(struct timer *timer)
{
	exec_kill(container_of(timer, struct exec, timeout), REASON_TIMEOUT);
}

static void timed_out(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, timeout);
	if (exec->main_ended)
		return;
	exec->reason = REASON_TIMEOUT;
	if (!exec->grace_ms) {
		grace_over(timer);
		return;
	}
	supervisor_tell(exec->supervisor, TELL_TIMEOUT, SIGTERM, false);
	timer_set(timer, exec->grace_ms, grace_over);
}

void exec_limit(struct exec *exec, u64 milliseconds) { timer_set(&exec->timeout, milliseconds, timed_out); }

/* ---- the end ---- */

static void send_exit(const struct exec *exec)
{
	const struct rusage *usage = &exec->usage;
	u64 kills = exec->oom_after == UINT64_MAX || exec->oom_before == UINT64_MAX ? UINT64_MAX
										   : exec->oom_after - exec->oom_before;
	frame_begin(the_conn, ANSWER_EXIT, exec->id);
	put_u32(the_conn, (u32)exec->status);
	put_u8(the_conn, exec->reason);
	put_u8(the_conn, (u8)exec->proof);
	put_u32(the_conn, exec->killed_count);
	put_u32(the_conn, exec->rounds);
	put_u64(the_conn, kills);
	put_u64(the_conn, exec->streams[OUT].total);
	put_u64(the_conn, exec->streams[ERR].total);
	put_u64(the_conn, exec->wall_us);
	put_u64(the_conn, (u64)usage->ru_utime.tv_sec * 1000000 + (u64)usage->ru_utime.tv_usec);
	put_u64(the_conn, (u64)usage->ru_stime.tv_sec * 1000000 + (u64)usage->ru_stime.tv_usec);
	put_u64(the_conn, (u64)usage->ru_maxrss);
	put_u64(the_conn, (u64)usage->ru_minflt);
	put_u64(the_conn, (u64)usage->ru_majflt);
	put_u64(the_conn, (u64)usage->ru_inblock);
	put_u64(the_conn, (u64)usage->ru_oublock);
	put_u64(the_conn, (u64)usage->ru_nvcsw);
	put_u64(the_conn, (u64)usage->ru_nivcsw);
	frame_end(the_conn);
}

void exec_finish(struct exec *exec)
{
	if (!exec->over)
		exec->oom_after = oom_kills();
	exec->over = true;
	timer_clear(&exec->drain);
	timer_clear(&exec->stuck);
	pool_refill();
	if (exec->attached) {
		send_exit(exec);
		exec->attached = false;
	}
	if (exec->flags & FLAG_HOLD && !exec->forgotten)
		return;
	answer_forget(exec);
	op_remove(&exec->op);
	exec->removed = true;
	if (!exec->supervisor)
		exec_free(exec);
}

static void drained(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, drain);
	exec->late = true;
	for (int i = 0; i < 2; i++)
		stream_set_quota(&exec->streams[i]);
	exec_settle(exec);
}

static void nobody_reads(struct timer *timer)
{
	struct exec *exec = container_of(timer, struct exec, stuck);
	exec->dropping = true;
	streams_resume(exec);
	exec_settle(exec);
}

/* After anything that may have brought the end nearer. True when it is over; the exec may be gone then. */
bool exec_settle(struct exec *exec)
{
	if (exec->main_ended)
		close_terminal(exec);
	if (!exec->main_ended || (exec->killing && !exec->killed))
		return false;
	if (exec->over && !exec->attached)
		return true;
	bool open = false, delivered = true;
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &exec->streams[i];
		if (stream->open && !stream->stalled)
			stream_read(stream);
		open |= stream->open;
		delivered &= stream_delivered(stream);
	}
	if (!open && delivered) {
		exec_finish(exec);
		return true;
	}
	if (open && !exec->late && !exec->drain.set)
		timer_set(&exec->drain, DRAIN_MS, drained);
	if (exec->killed && !exec->over && !exec->dropping && !exec->stuck.set)
		timer_set(&exec->stuck, STUCK_MS, nobody_reads);
	return false;
}

void exec_judge(struct exec *exec, bool reached)
{
	bool killed = exec->killing && WIFSIGNALED(exec->status) && WTERMSIG(exec->status) == SIGKILL;
	if (exec->reason == REASON_TIMEOUT && !reached && !killed)
		exec->reason = REASON_ITSELF;
}

static void main_ended(struct exec *exec, const struct report *report)
{
	exec->main_ended = true;
	exec->status = report->status;
	exec->usage = report->usage;
	exec->wall_us = report->ended_us - exec->begun_us;
	exec->proof = report->empty && features() & FEATURE_SUBREAPER ? PROOF_ECHILD : PROOF_LEFT_RUNNING;
	timer_clear(&exec->timeout);
	input_end(exec);
	exec_judge(exec, report->timed_out);
	if (exec->reason == REASON_TIMEOUT && !report->empty)
		exec_kill(exec, REASON_TIMEOUT);
	else if (exec->reason == REASON_TIMEOUT && !(features() & FEATURE_SUBREAPER))
		exec->killing = true;  /* what it left is nobody's child: hunted once its supervisor has ended */
}

static void started(struct exec *exec, u32 pid)
{
	exec->started = true;
	exec->pid = pid;
	bool hurry = conn_hurries(the_conn);
	if (exec->attached)
		exec_send_started(exec);
	if (!(exec->flags & FLAG_TELL_START))
		conn_set_hurry(the_conn, hurry);
}

static void failed(struct exec *exec, const struct report *report)
{
	if (exec->attached)
		send_fail(the_conn, exec->id, report->error, (u8)report->stage, "the command could not be started");
	exec_free(exec);
}

static void killed(struct exec *exec, const struct report *report)
{
	exec->killed = true;
	timer_clear(&exec->stuck);
	kill_all_reported(exec, report->killed);
	if (exec->over)
		return;
	exec->proof = report->proof;
	exec->killed_count = report->killed;
	exec->rounds = report->rounds;
}

/* Its command ended and left nobody. Where that is not sure, or the supervisor is not as it was, it ends; who is left is
 * hunted. */
static void nobody_left(struct exec *exec, bool free)
{
	struct supervisor *supervisor = exec->supervisor;
	if (exec->killing || !free) {
		supervisor_dismiss(supervisor);
		return;
	}
	exec->supervisor = NULL;
	supervisor_free(supervisor);
}

void exec_recover(struct exec *exec, const struct report *last)
{
	if (!exec->started && last->pid)
		started(exec, last->pid);
	if (exec->started && !exec->main_ended && last->ended)
		main_ended(exec, last);
}

void exec_reported(struct exec *exec, const struct report *report)
{
	if (report->kinds & REPORT_FAILED) {
		failed(exec, report);
		return;
	}
	if (report->kinds & REPORT_STARTED) {
		supervisor_has_read(exec->supervisor);
		started(exec, report->pid);
	}
	if (report->kinds & REPORT_EXITED)
		main_ended(exec, report);
	if (report->kinds & REPORT_HEARD)
		timer_clear(&exec->stuck);
	if (report->kinds & REPORT_KILLED)
		killed(exec, report);
	if (report->kinds & REPORT_EXITED && report->empty && exec->supervisor)
		nobody_left(exec, report->free);
	if (!exec_settle(exec) && exec->started)
		streams_watch(exec);
}
