/* From an op's number to what does it. */
#include "agent.h"
#include "core.h"


static op_handler *handlers[256];

void dispatch_set(u8 op, op_handler *handler) { handlers[op] = handler; }

void dispatch_start(void)
{
	static op_handler *const files[] = {
		[OP_STAT] = op_stat, [OP_LIST_DIR] = op_list_dir, [OP_READ] = op_read, [OP_WRITE] = op_write,
		[OP_MKDIR] = op_mkdir, [OP_REMOVE] = op_remove_path, [OP_RENAME] = op_rename, [OP_CHMOD] = op_chmod,
		[OP_COPY] = op_copy, [OP_SYMLINK] = op_symlink, [OP_READLINK] = op_readlink, [OP_WATCH] = op_watch,
		[OP_WALK] = op_walk,
	};
	static op_handler *const core[] = {
		[OP_HELLO] = op_hello, [OP_PING] = op_ping, [OP_LEASE] = op_lease, [OP_SHUTDOWN] = op_shutdown,
		[OP_KILL_ALL] = op_kill_all, [OP_USER] = op_user, [OP_LIST] = op_list, [OP_EXEC] = op_exec,
		[OP_ATTACH] = op_attach, [OP_FORGET] = op_forget, [OP_CPU_TIME] = op_cpu_time,
		[OP_SPACE] = op_space,
	};
	for (size_t i = 0; i < sizeof core / sizeof *core; i++)
		dispatch_set((u8)i, core[i]);
	for (size_t i = OP_STAT; i < sizeof files / sizeof *files; i++)
		dispatch_set((u8)i, files[i]);
}

static bool belongs_to_id(u8 op)
{
	return (op >= OP_STDIN && op <= OP_RESIZE) || op == OP_FILE_DATA || op == OP_FILE_END || op == OP_CANCEL;
}

static int later_frame(u8 code, u32 id, struct reader *r)
{
	struct op *op = op_find(id);
	if (!op) {
		if (code == OP_KILL)
			exec_kill_ended(id);
		return 0;
	}
	if (code != OP_ACK)
		return op->class->frame ? op->class->frame(op, code, r) : 0;
	u8 stream = read_u8(r);
	u64 total = read_u64(r);
	if (read_end(r))
		op_acked(op, stream, total);
	return 0;
}

void dispatch(struct conn *conn, u8 op, u32 id, struct reader *r)
{
	int result = -ENOSYS;
	if (belongs_to_id(op))
		result = later_frame(op, id, r);
	else if (handlers[op])
		result = handlers[op](conn, id, r);
	if (r->bad)
		send_fail(conn, id, EPROTO, 0, "the payload does not parse");
	else if (result < 0)
		send_fail(conn, id, -result, 0, "");
}
