/* KILL_ALL: the families of all execs, ended ones too; and LIST. */
#include "exec.h"

#include <string.h>

enum { QUESTIONS_MOST = 64 };
enum { LIST_BYTES = 1000 * 1000, ROW_BYTES = 25 /* without the args */ };

/* Those that come while the families of an earlier one are being killed are answered with it. */
static u32 questions[QUESTIONS_MOST], asked, waiting, killed_in_all;

static void answer(void)
{
	/* Without subreapers the daemons of ended execs are the agent's own children. */
	if (!(features() & FEATURE_SUBREAPER))
		exec_hunt();
	for (u32 i = 0; i < asked; i++) {
		frame_begin(the_conn, ANSWER_DONE, questions[i]);
		put_u32(the_conn, killed_in_all);
		frame_end(the_conn);
	}
	asked = 0;
}

/* Its session ended: nobody waits for the answer. */
void kill_all_lost(void) { asked = 0; }

/* Another's kill may have taken its command along before its own supervisor came to it. */
void kill_all_reported(struct exec *exec, u32 killed)
{
	if (!exec->counted)
		return;
	exec->counted = false;
	killed_in_all += !killed && exec->ran ? 1 : killed;
	if (--waiting == 0)
		answer();
}

int op_kill_all(struct conn *conn, u32 id, struct reader *r)
{
	(void)conn;
	if (!read_end(r))
		return 0;
	if (asked == QUESTIONS_MOST)
		return -EBUSY;
	questions[asked++] = id;
	if (!waiting)
		killed_in_all = 0;
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec->supervisor && !exec->killed && !exec->counted) {
			exec->counted = true;
			exec->ran = exec->started && !exec->main_ended;
			waiting++;
		}
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (exec->counted)
			exec_kill(exec, REASON_KILL);
	if (!waiting)
		answer();
	return 0;
}

/* Args are named as long as the `rest` of the rows still fits without them. */
static void put_row(const struct exec *exec, u32 rest)
{
	static const u8 none[4];
	size_t least = ROW_BYTES + (size_t)rest * (ROW_BYTES + sizeof none);
	bool fits = exec->args && frame_size(the_conn) + exec->args_size + least < LIST_BYTES;
	put_u32(the_conn, exec->id);
	put_u32(the_conn, exec->pid);
	put_u8(the_conn, exec->over || exec->main_ended);
	put_u64(the_conn, exec->streams[OUT].total);
	put_u64(the_conn, exec->streams[ERR].total);
	put_raw(the_conn, fits ? exec->args : none, fits ? exec->args_size : sizeof none);
}

int op_list(struct conn *conn, u32 id, struct reader *r)
{
	u32 number = 0;
	if (!read_end(r))
		return 0;
	for (const struct exec *exec = execs; exec; exec = exec->next)
		number += !exec->removed;
	frame_begin(conn, ANSWER_LIST, id);
	put_u32(conn, number);
	for (const struct exec *exec = execs; exec; exec = exec->next)
		if (!exec->removed)
			put_row(exec, --number);
	frame_end(conn);
	return 0;
}
