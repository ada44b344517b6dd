/* The frames that begin, take up and release execs. */
#include "exec.h"

#include <stdlib.h>

static void resume(struct op *op)
{
	struct exec *exec = container_of(op, struct exec, op);
	streams_resume(exec);
	exec_settle(exec);
}

static void acked_other(struct op *op, u8 stream, u64 total)
{
	struct exec *exec = container_of(op, struct exec, op);
	struct stream *err = &exec->streams[ERR];
	if (stream != 2 || total <= err->acked || total > err->sent)
		return;
	err->acked = total;
	streams_resume(exec);
	exec_settle(exec);
}

static void session_lost(struct op *op)
{
	struct exec *exec = container_of(op, struct exec, op);
	exec->attached = false;
	if (exec->flags & FLAG_HOLD && !exec->forgotten) {
		op_restore(op);
		streams_resume(exec);
		exec_settle(exec);
		return;
	}
	exec->dropping = exec->removed = true;
	exec->answering = false;
	exec_kill(exec, REASON_KILL);
	streams_resume(exec);
	exec_settle(exec);
}

static const struct op_class exec_class = {exec_frame, resume, acked_other, session_lost};

int op_exec(struct conn *conn, u32 id, struct reader *r)
{
	struct exec *exec = calloc(1, sizeof *exec);
	u64 timeout_ms;
	(void)conn;
	int error = cpu_time_spent() ? -ETIME : exec ? op_add(&exec->op, id, &exec_class) : -ENOMEM;
	if (error) {
		descriptors_refuse(r);
		free(exec);
		return error;
	}
	exec->id = id;
	exec->terminal = -1;
	exec->attached = true;
	exec->begun_us = now_us();
	exec->oom_before = oom_kills();
	exec->next = execs;
	execs = exec;
	if (exec_make(exec, r, &timeout_ms))
		exec_free(exec);
	else if (timeout_ms)
		exec_limit(exec, timeout_ms);
	return 0;
}

void exec_kill_ended(u32 id)
{
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec->id == id && exec->removed) {
			exec_kill(exec, REASON_KILL);
			return;
		}
}

static struct exec *held(u32 id)
{
	struct op *op = op_find(id);
	if (!op || op->class != &exec_class)
		return NULL;
	struct exec *exec = container_of(op, struct exec, op);
	return exec->flags & FLAG_HOLD && !exec->forgotten ? exec : NULL;
}

/* Who asked for more than the pid was told of the input: where it goes on is for the host to know. */
void exec_send_started(const struct exec *exec)
{
	frame_begin(the_conn, ANSWER_STARTED, exec->id);
	put_u32(the_conn, exec->pid);
	if (exec->tells) {
		put_u8(the_conn, input_told(exec));
		put_u64(the_conn, exec->op.received);
		put_u64(the_conn, exec->op.taken);
	}
	frame_end(the_conn);
}

int op_attach(struct conn *conn, u32 id, struct reader *r)
{
	u64 out = read_u64(r), err = read_u64(r);
	bool tells = r->at < r->end && read_u8(r);
	struct exec *exec = held(id);
	(void)conn;
	if (!read_end(r))
		return 0;
	if (!exec)
		return -ESRCH;
	exec->attached = true;
	exec->dropping = false;
	exec->tells = tells;
	exec->op.told = exec->op.taken;
	if (exec->started)
		exec_send_started(exec);
	stream_attach(&exec->streams[OUT], out);
	stream_attach(&exec->streams[ERR], err);
	streams_resume(exec);
	exec_settle(exec);
	return 0;
}

int op_forget(struct conn *conn, u32 id, struct reader *r)
{
	struct exec *exec = held(id);
	if (!read_end(r))
		return 0;
	if (!exec)
		return -ESRCH;
	exec->attached = false;
	exec->forgotten = exec->answering = exec->dropping = true;
	if (exec->over) {
		exec_finish(exec);
		return 0;
	}
	(void)conn;
	exec_kill(exec, REASON_KILL);
	streams_resume(exec);
	exec_settle(exec);
	return 0;
}

void exec_start(void)
{
	have_subreaper();
	if (!filter_follows)
		pool_fill();
}
