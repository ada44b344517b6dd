/* FILTER: the seccomp program of every command, for places whose own profile would bind the agent too. */
#include "agent.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { OP_FILTER = 0x08, INSTRUCTIONS_MOST = 4096, MODE_FILTER = 2 };

/* As in <linux/filter.h>. */
struct instruction {
	u16 code;
	u8 jump_true, jump_false;
	u32 operand;
};
struct program {
	u16 count;
	const struct instruction *instructions;
};

/* Supervisors may exist before the filter does, so it lies in memory that they share. A new one is written beside the
 * present one, which a command may be installing at that moment. */
struct filter {
	u32 count;
	struct instruction instructions[INSTRUCTIONS_MOST];
};
static struct shared {
	u32 present;
	struct filter filters[2];
} *shared;

static int op_filter(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes code = read_rest(r);

	if (!read_end(r))
		return 0;
	if (code.size % sizeof(struct instruction) || code.size > sizeof shared->filters[0].instructions)
		return -EINVAL;
	u32 other = !shared->present;
	struct filter *filter = &shared->filters[other];
	filter->count = code.size / (u32)sizeof(struct instruction);
	memcpy(filter->instructions, code.data, code.size);
	__atomic_store_n(&shared->present, other, __ATOMIC_RELEASE);
	send_done(conn, id);
	return 0;
}

int filter_start(void)
{
	void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	shared = memory;
	dispatch_set(OP_FILTER, op_filter);
	return 0;
}

int seccomp_apply(void)
{
	if (!shared)
		return 0;
	const struct filter *filter = &shared->filters[__atomic_load_n(&shared->present, __ATOMIC_ACQUIRE) & 1];
	struct program program = {(u16)filter->count, filter->instructions};
	if (!program.count)
		return 0;
	return prctl(PR_SET_SECCOMP, MODE_FILTER, &program, 0, 0) < 0 ? -errno : 0;
}
