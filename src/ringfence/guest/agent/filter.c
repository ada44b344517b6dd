/* FILTER: the seccomp program of every command, for places whose own profile would bind the agent too. */
#include "exec.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { OP_FILTER = 0x08, INSTRUCTIONS_MOST = 4096, MODE_FILTER = 2, KEYRING_TO_PARENT = 18 };

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
enum { LOAD = 0x20, AND = 0x54, JUMP = 0x05, IF_EQUAL = 0x15, IF_GREATER = 0x25, IF_NOT_LESS = 0x35, IF_SET = 0x45, RETURN = 0x06 };
/* As in <linux/seccomp.h> and <linux/audit.h>. */
enum { NUMBER_AT = 0, ARCH_AT = 4, ARGUMENTS_AT = 16, ARGUMENT_BYTES = 8 };
#define ALLOW 0x7fff0000u
#define ACTION 0x7fff0000u  /* to end the process is to end the thread, with another bit */
#define REFUSE 0x00050000u  /* and all below it: an error, a signal, the end */
#define UNKNOWN 0x7fc00000u /* ask somebody else */
#define PROC (O_RDONLY | O_CLOEXEC | O_LARGEFILE)  /* how family.c and text.c open */
#ifdef __x86_64__
#define ARCH 0xc000003eu
#elif defined(__aarch64__)
#define ARCH 0xc00000b7u
#else
#define ARCH 0u
#endif

/* Supervisors may exist before the filter does, so it lies in memory that they share. A new one is written beside the
 * present one, which a command may be installing at that moment. */
struct filter {
	u32 count, harmless;  /* harmless: to supervisors */
	struct instruction instructions[INSTRUCTIONS_MOST];
};
static struct shared {
	u32 present;
	struct filter filters[2];
} *shared;

u32 filter_changes;

static bool jumps(const struct instruction *at, u32 value)
{
	switch (at->code) {
	case IF_EQUAL:
		return value == at->operand;
	case IF_GREATER:
		return value > at->operand;
	case IF_NOT_LESS:
		return value >= at->operand;
	default:
		return value & at->operand;
	}
}

/* A call; where a filter looks at its arguments, the one of them that matters: from 1, 0 for none. */
struct call {
	u32 number, argument, value;
};

static bool load(const struct call *call, u32 at, u32 *value)
{
	u32 low = ARGUMENTS_AT + ARGUMENT_BYTES * (call->argument - 1);
	*value = at == NUMBER_AT ? call->number : at == ARCH_AT ? ARCH : at == low ? call->value : 0;
	return at == NUMBER_AT || at == ARCH_AT || (call->argument && (at == low || at == low + 4));
}

/* Its answer to the call whatever the other arguments; UNKNOWN where that cannot be told. */
static u32 answer(const struct filter *filter, const struct call *call)
{
	u32 value = 0;
	for (u32 i = 0; i < filter->count; i++) {
		const struct instruction *at = &filter->instructions[i];
		if (at->code == LOAD && load(call, at->operand, &value))
			continue;
		if (at->code == AND)
			value &= at->operand;
		else if (at->code == JUMP)
			i += at->operand < filter->count ? at->operand : filter->count;
		else if (at->code == IF_EQUAL || at->code == IF_GREATER || at->code == IF_NOT_LESS || at->code == IF_SET)
			i += jumps(at, value) ? at->jump_true : at->jump_false;
		else
			return at->code == RETURN ? at->operand : UNKNOWN;
	}
	return UNKNOWN;
}

static bool allows(const struct filter *filter, const struct call *call) { return answer(filter, call) == ALLOW; }

/* A command with its supervisor's user could put its own keyring in the place of that one's, which could not look any
 * more whether it is another. */
static bool keeps_keyring(const struct filter *filter)
{
	static const struct call call = {SYS_keyctl, 1, KEYRING_TO_PARENT};
	return !own_pid_namespace || (answer(filter, &call) & ACTION) <= REFUSE;
}

/* All calls of job.c, supervisor.c, nest.c's inner process and family.c, and of command.c up to its execve. */
static bool is_harmless(const struct filter *filter)
{
	static const struct call calls[] = {
		{SYS_recvmsg, 0, 0}, {SYS_recvfrom, 0, 0}, {SYS_sendto, 0, 0}, {SYS_ppoll, 0, 0}, {SYS_wait4, 0, 0},
		{SYS_rt_sigreturn, 0, 0}, {SYS_rt_sigpending, 0, 0}, {SYS_nanosleep, 0, 0}, {SYS_clock_nanosleep, 0, 0}, {SYS_clock_gettime, 0, 0},
		{SYS_kill, 0, 0}, {SYS_pidfd_open, 0, 0}, {SYS_pidfd_send_signal, 0, 0}, {SYS_getpid, 0, 0},
		{SYS_openat, 3, PROC | O_DIRECTORY}, {SYS_openat, 3, PROC}, {SYS_getdents64, 0, 0}, {SYS_read, 0, 0}, {SYS_write, 0, 0},
		{SYS_close, 0, 0}, {SYS_fcntl, 2, F_SETFD}, {SYS_brk, 0, 0}, {SYS_mmap, 0, 0}, {SYS_munmap, 0, 0},
		{SYS_mprotect, 0, 0}, {SYS_clone, 1, CLONE_VM | CLONE_VFORK | SIGCHLD}, {SYS_prlimit64, 0, 0},
		{SYS_setsid, 0, 0}, {SYS_ioctl, 2, TIOCSCTTY}, {SYS_dup3, 0, 0}, {SYS_setgroups, 0, 0},
		{SYS_setresgid, 0, 0}, {SYS_setresuid, 0, 0}, {SYS_prctl, 1, PR_SET_DUMPABLE}, {SYS_geteuid, 0, 0}, {SYS_getegid, 0, 0}, {SYS_capset, 0, 0},
		{SYS_chdir, 0, 0}, {SYS_rt_sigprocmask, 0, 0}, {SYS_execve, 0, 0}, {SYS_exit, 0, 0}, {SYS_exit_group, 0, 0},
#ifdef SYS_dup2
		{SYS_dup2, 0, 0}, {SYS_open, 2, PROC | O_DIRECTORY},
#endif
	};
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!allows(filter, &calls[i]))
			return false;
	return keeps_keyring(filter);
}

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
	filter->harmless = is_harmless(filter);
	__atomic_store_n(&shared->present, other, __ATOMIC_RELEASE);
	if (filter_changes++)  /* before the first one there was none to be installed ahead */
		supervisors_renew();
	else
		pool_fill();
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

static const struct filter *present(void)
{
	return &shared->filters[__atomic_load_n(&shared->present, __ATOMIC_ACQUIRE) & 1];
}

static int install(const struct filter *filter)
{
	struct program program = {(u16)filter->count, filter->instructions};
	return prctl(PR_SET_SECCOMP, MODE_FILTER, &program, 0, 0) < 0 ? -errno : 0;
}

bool seccomp_ahead(void)
{
	if (!shared)
		return false;
	const struct filter *filter = present();
	return filter->count && filter->harmless && install(filter) == 0;
}

int seccomp_apply(void)
{
	if (!shared || !present()->count)
		return 0;
	return install(present());
}
