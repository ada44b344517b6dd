/* The keeper's child, which becomes the program that makes the sandbox's namespaces. */
#include "keep.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { INFO_FD = 3, COUNTER_FD = 4, LIFELINE_FD = 5, OUT_OF_THE_WAY = 16, STACK_BYTES = 32768 };
#define INTO_CGROUP 0x200000000ULL

struct clone_args_v2 {
	u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static void default_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Have PROGRAM get `fd` as `wanted`; false when it cannot be. */
static bool hand_over(int fd, int wanted)
{
	if (fd == wanted)
		return fcntl(fd, F_SETFD, 0) == 0;
	return fd >= 0 && dup2(fd, wanted) >= 0;
}

struct start {
	char **args;
	int lifeline, keepers_end, cgroup;
};

/* What hangs is heard by nobody else. Of an end before it asks, the kernel does not tell. */
static void end_with_keeper(const struct start *start)
{
	struct pollfd line = {.fd = start->lifeline};

	close(start->keepers_end);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&line, 1, 0) != 0)
		_exit(NOT_STARTED);
}

/* Who this is on the host, whichever namespace of pids it is in: what bubblewrap tells of its child. */
static bool tell_pid(int info)
{
	char name[16] = "";
	return readlink("/proc/self", name, sizeof(name) - 1) > 0 && dprintf(info, "{\"child-pid\": %s}\n", name) > 0;
}

static int run_program(void *argument)
{
	const struct start *start = argument;
	char **args = start->args;

	default_signals();
	setsid();
	end_with_keeper(start);
	prctl(PR_SET_DUMPABLE, 1); /* a program that its user may not read has the files of its /proc belong to root */
	for (int i = 0; i < keeping.inside.count; i++) {
		int done = write_file(keeping.inside.list[i].path, keeping.inside.list[i].value);
		if (done < 0) {
			complain("join", keeping.inside.list[i].path, -done);
			_exit(NOT_STARTED);
		}
	}
	int info = openat(keeping.home, "info", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	bool told = keeping.begin ? tell_pid(info) : hand_over(info, INFO_FD);
	if (!told || !hand_over(null, 0))
		give_up("open", "info");
	if (keeping.counter && !hand_over(open(keeping.counter, O_RDONLY | O_CLOEXEC), COUNTER_FD))
		give_up("open", keeping.counter);
	if (!hand_over(start->lifeline, LIFELINE_FD))
		give_up("open", "lifeline");
	if (keeping.begin)
		begin(args);
	prctl(PR_SET_PDEATHSIG, 0);
	execv(args[0], args);
	give_up("run", args[0]);
}

static unsigned namespaces(void)
{
	if (!keeping.begin)
		return 0;
	return CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (keeping.user ? CLONE_NEWUSER : 0);
}

/* Born in a cgroup: joining later would wait for every processor. */
static pid_t start_inside(struct start *start)
{
	struct clone_args_v2 args = {.flags = INTO_CGROUP | namespaces(), .exit_signal = SIGCHLD, .cgroup = (u64)start->cgroup};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		_exit(run_program(start));
	return pid;
}

/* In our memory until it is PROGRAM, and we wait for that: a copy would cost more than all else it does. */
static pid_t start_here(struct start *start)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	int dumpable = prctl(PR_GET_DUMPABLE);
	pid_t pid = clone(run_program, stack + sizeof(stack), (int)(CLONE_VM | CLONE_VFORK | SIGCHLD | namespaces()), start);
	prctl(PR_SET_DUMPABLE, dumpable == 1);
	return pid;
}

/* A copy of us, which may hang while it mounts what is somebody else's: we are free to kill it. */
static pid_t start_apart(struct start *start)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | namespaces(), 0, 0, 0, 0);
	if (pid == 0)
		_exit(run_program(start));
	return pid;
}

/* A pipe whose other end is this process's alone, as long as it lives; false and errno. */
static bool make_lifeline(struct start *start)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	start->lifeline = fcntl(ends[0], F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
	start->keepers_end = ends[1];
	close(ends[0]);
	return start->lifeline >= 0;
}

pid_t start_program(char **args)
{
	struct start start = {.args = args, .cgroup = -1};
	if (!make_lifeline(&start))
		return complain("make", "a lifeline", errno);
	if (keeping.into && (start.cgroup = open(keeping.into, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		return complain("open", keeping.into, errno);
	user_remember();
	pid_t pid = keeping.into                           ? start_inside(&start)
		  : keeping.begin && binds_of_others(args) ? start_apart(&start)
							   : start_here(&start);
	if (pid < 0)
		return complain("start", keeping.begin ? "namespaces" : args[0], errno);
	close(start.lifeline);
	close(start.cgroup);
	if (keeping.passed)
		close((int)strtol(keeping.passed, NULL, 10));
	return pid;
}
