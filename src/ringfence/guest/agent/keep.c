/* The keeper: a process of the host, one per sandbox of the process backend. It makes the sandbox's cgroups, starts the
 * program that makes its namespaces, waits until all of it is gone, and removes what was made. It runs nothing of the
 * sandbox's and reads nothing from it.
 *
 *   ringfence-guest --keep DIRECTORY [STEP]... -- PROGRAM [ARGUMENT]...
 *
 * DIRECTORY is the sandbox's own; the keeper holds a POSIX lock on DIRECTORY/keeper for as long as it lives and removes
 * the directory last. PROGRAM gets an open file DIRECTORY/info as descriptor 3, into which it writes {"child-pid": N}.
 * Steps, in order:
 *   --make PATH          make this cgroup; it is removed at the end, with those that were made below it
 *   --write FILE VALUE   write this
 *   --inside FILE VALUE  written by the child, before PROGRAM (its own place, oom_score_adj)
 *   --into PATH          PROGRAM is born in this version 2 cgroup
 *   --counter FILE       PROGRAM gets it as descriptor 4, open for reading
 *   --thaw FILE VALUE    written when the sandbox is killed, so that a frozen one can die
 *   --attached           the end of standard input kills the sandbox
 *   --last PATH          the directory that DIRECTORY is in: removed, with the files in it, by the last to leave it
 * SIGTERM kills the sandbox. The exit status is PROGRAM's; 125 and a line on standard error when it was not started.
 */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOT_STARTED = 125, STEPS_CAP = 64, INFO_FD = 3, COUNTER_FD = 4, REMOVE_TRIES = 2000, STAT_BYTES = 512 };
#define INTO_CGROUP 0x200000000ULL

struct clone_args_v2 {
	u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
struct step {
	const char *path, *value;
};
struct steps {
	struct step list[STEPS_CAP];
	int count;
};

static struct steps made, inside, thaws;
static const char *into, *counter, *last;
static bool attached;
static int home = -1;  /* DIRECTORY */
static pid_t program;
static bool killing;

static int complain(const char *what, const char *name, int error)
{
	dprintf(2, "%s %s: %s\n", what, name, strerror(error));
	return -error;
}

static int write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int done = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	close(fd);
	return done;
}

static int note(struct steps *steps, const char *path, const char *value)
{
	if (steps->count == STEPS_CAP)
		return -E2BIG;
	steps->list[steps->count++] = (struct step){path, value};
	return 0;
}

/* One step; how many arguments it took, 0 when it is none, -errno after a complaint. */
static int take_step(int left, char **arg)
{
	const char *path = left > 1 ? arg[1] : NULL, *value = left > 2 ? arg[2] : NULL;
	int done = -EINVAL, used = 3;

	if (!strcmp(arg[0], "--attached"))
		return attached = true, 1;
	if (!path)
		return 0;
	if (!strcmp(arg[0], "--make")) {
		used = 2;
		done = mkdir(path, 0755) < 0 ? -errno : note(&made, path, NULL);
	} else if (!strcmp(arg[0], "--into")) {
		used = 2;
		into = path;
		done = 0;
	} else if (!strcmp(arg[0], "--counter")) {
		used = 2;
		counter = path;
		done = 0;
	} else if (!strcmp(arg[0], "--last")) {
		used = 2;
		last = path;
		done = 0;
	} else if (!value) {
		return 0;
	} else if (!strcmp(arg[0], "--write")) {
		done = write_file(path, value);
	} else if (!strcmp(arg[0], "--inside")) {
		done = note(&inside, path, value);
	} else if (!strcmp(arg[0], "--thaw")) {
		done = note(&thaws, path, value);
	} else {
		return 0;
	}
	return done < 0 ? complain(arg[0] + 2, path, -done) : used;
}

/* ---- the child ------------------------------------------------------------------------------------------------------ */

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

static _Noreturn void run_program(char **args)
{
	default_signals();
	setsid();
	prctl(PR_SET_DUMPABLE, 1); /* a program that its user may not read has the files of its /proc belong to root */
	for (int i = 0; i < inside.count; i++) {
		int done = write_file(inside.list[i].path, inside.list[i].value);
		if (done < 0) {
			complain("join", inside.list[i].path, -done);
			_exit(NOT_STARTED);
		}
	}
	int info = openat(home, "info", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (!hand_over(info, INFO_FD) || !hand_over(null, 0)) {
		complain("open", "info", errno);
		_exit(NOT_STARTED);
	}
	if (counter && !hand_over(open(counter, O_RDONLY | O_CLOEXEC), COUNTER_FD)) {
		complain("open", counter, errno);
		_exit(NOT_STARTED);
	}
	execv(args[0], args);
	complain("run", args[0], errno);
	_exit(NOT_STARTED);
}

/* A fork, born in the cgroup `into` when there is one: joining later would wait for every processor. */
static pid_t start(void)
{
	if (into) {
		int cgroup = open(into, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (cgroup < 0)
			return -1;
		struct clone_args_v2 args = {.flags = INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (u64)cgroup};
		pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
		if (pid != 0)
			close(cgroup);
		return pid;
	}
	return fork();
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

/* The parent of a process, 0 when there is none. */
static pid_t parent_of(pid_t pid)
{
	char name[32], text[STAT_BYTES];
	snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (size <= 0)
		return 0;
	text[size] = 0;
	char *after = strrchr(text, ')');
	return after && strlen(after) > 4 ? (pid_t)strtol(after + 4, NULL, 10) : 0;
}

/* The guest as PROGRAM told of it, 0 when it did not yet. */
static pid_t guest(void)
{
	char text[STAT_BYTES];
	int fd = openat(home, "info", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (size <= 0)
		return 0;
	text[size] = 0;
	char *at = strstr(text, "\"child-pid\":");
	return at ? (pid_t)strtol(at + strlen("\"child-pid\":"), NULL, 10) : 0;
}

/* Kill the first process of the sandbox, with which the kernel kills all of it; PROGRAM ends then. */
static void kill_sandbox(void)
{
	pid_t pid = guest();
	int handle = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	killing = true;
	if (handle >= 0 && parent_of(pid) == program)
		syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0);
	else
		kill(program, SIGKILL);
	if (handle >= 0)
		close(handle);
	for (int i = 0; i < thaws.count; i++)
		write_file(thaws.list[i].path, thaws.list[i].value);
}

/* Kill what was left to us when PROGRAM died before its child: we are its subreaper. True where the kernel lists children. */
static bool kill_listed(void)
{
	char text[STAT_BYTES];
	int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	ssize_t size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size < 0 ? 0 : size] = 0;
	char *at = text, *end;
	for (long pid; (pid = strtol(at, &end, 10)) > 1 && *end == ' '; at = end)
		kill((pid_t)pid, SIGKILL);
	return size >= 0;
}

static void kill_found(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (pid > 1 && parent_of(pid) == getpid())
			kill(pid, SIGKILL);
	}
	if (proc)
		closedir(proc);
}

static void kill_children(void)
{
	for (int i = 0; i < thaws.count; i++)
		write_file(thaws.list[i].path, thaws.list[i].value);
	if (!kill_listed())
		kill_found();
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Remove the names in a directory, which are ours alone and at most one level deep. */
static void empty(int directory, bool deeper)
{
	int copy = dup(directory);
	DIR *names = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	while (names && (entry = readdir(names))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(directory, entry->d_name, 0) == 0 || !deeper)
			continue;
		int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			continue;
		empty(below, false);
		close(below);
		unlinkat(directory, entry->d_name, AT_REMOVEDIR);
	}
	if (names)
		closedir(names);
}

/* Remove a directory on a tmpfs, and the files in it, unless a directory is there: each has a link to this one. */
static void leave(const char *directory)
{
	struct stat status;

	if (rmdir(directory) == 0 || errno != ENOTEMPTY)
		return;
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &status) == 0 && status.st_nlink == 2) {
		empty(fd, false);
		rmdir(directory);
	}
	if (fd >= 0)
		close(fd);
}

/* Those of single commands, below a sandbox's cgroup; whether there were any that nobody is in. */
static bool remove_below(const char *cgroup)
{
	DIR *names = opendir(cgroup);
	struct dirent *entry;
	bool any = false;

	while (names && (entry = readdir(names)))
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			any |= unlinkat(dirfd(names), entry->d_name, AT_REMOVEDIR) == 0;
	if (names)
		closedir(names);
	return any;
}

static void clear(const char *directory)
{
	for (int i = made.count - 1; i >= 0; i--)
		for (int tries = 0; tries < REMOVE_TRIES; tries++) {
			if (rmdir(made.list[i].path) == 0 || errno != EBUSY)
				break;
			if (!remove_below(made.list[i].path))
				nap();
		}
	if (home >= 0) {
		empty(home, true);
		rmdir(directory);
	}
	if (last)
		leave(last);
}

/* Reap until there is no child; the status of PROGRAM once it is known, else -1. */
static bool reap(int *status)
{
	for (;;) {
		int how;
		pid_t pid = waitpid(-1, &how, WNOHANG);
		if (pid == program) {
			*status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
			killing = true;  /* again and again: a list of children may miss one while another ends */
			kill_children();
		} else if (pid == 0) {
			return false;
		} else if (pid < 0 && errno == ECHILD) {
			return true;
		}
	}
}

static int watch_over(int signals)
{
	struct pollfd polled[2] = {{.fd = signals, .events = POLLIN}, {.fd = attached ? 0 : -1, .events = POLLIN}};
	int status = NOT_STARTED;

	while (!reap(&status)) {
		struct signalfd_siginfo signal;
		char byte;
		if (poll(polled, 2, killing ? 1000 : -1) == 0) {
			kill_children();
			continue;
		}
		while (read(signals, &signal, sizeof(signal)) == (ssize_t)sizeof(signal))
			if (signal.ssi_signo == SIGTERM)
				kill_sandbox();
		if (polled[1].revents && read(0, &byte, 1) <= 0) {
			polled[1].fd = -1;
			kill_sandbox();
		}
	}
	return status;
}

static int lock_directory(const char *directory)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	home = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (home < 0)
		return complain("open", directory, errno);
	int fd = openat(home, "keeper", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0)
		return complain("lock", directory, errno);
	return 0;
}

static int listen_to_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (int number = 1; number < 32; number++)
		if (number != SIGKILL && number != SIGSTOP && number != SIGSEGV && number != SIGBUS && number != SIGFPE)
			sigaddset(&set, number);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int keep_main(int count, char **args)
{
	int signals = listen_to_signals();
	int at = 1, used = 0;

	umask(022); /* what bubblewrap makes is for other users too */
	if (count < 1 || lock_directory(args[0]) < 0)
		return NOT_STARTED;
	while (at < count && (used = take_step(count - at, args + at)) > 0)
		at += used;
	if (used < 0 || at + 1 >= count || strcmp(args[at], "--")) {
		if (used >= 0)
			complain("keep", at < count ? args[at] : "--", EINVAL);
		clear(args[0]);
		return NOT_STARTED;
	}
	program = start();
	if (program == 0)
		run_program(args + at + 1);
	if (program < 0) {
		complain("start", args[at + 1], errno);
		clear(args[0]);
		return NOT_STARTED;
	}
	int status = watch_over(signals);
	clear(args[0]);
	return status;
}
