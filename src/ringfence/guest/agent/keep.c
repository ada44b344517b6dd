/* The keeper: a process of the host, one per sandbox of the process backend. It makes the sandbox's cgroups, starts the
 * program that makes its namespaces, waits until all of it is gone, and removes what was made. It runs nothing of the
 * sandbox's and reads nothing from it.
 *
 *   ringfence-guest --keep DIRECTORY [STEP]... -- PROGRAM [ARGUMENT]...
 *
 * DIRECTORY is the sandbox's own; the keeper holds a POSIX lock on DIRECTORY/keeper for as long as it lives and removes
 * the directory last. DIRECTORY/info is to say {"child-pid": N}: PROGRAM, such as bubblewrap, gets it open as descriptor 3 and
 * writes that, or the keeper does with --begin. As descriptor 5 it gets the end of a pipe that is closed when the keeper
 * ends, however it does.
 * Steps, in order:
 *   --make PATH          make this cgroup; it is removed at the end, with those that were made below it
 *   --write FILE VALUE   write this
 *   --inside FILE VALUE  written by the child, before PROGRAM (its own place, oom_score_adj)
 *   --into PATH          PROGRAM is born in this version 2 cgroup
 *   --counter FILE       PROGRAM gets it as descriptor 4, open for reading
 *   --pass DESCRIPTOR    PROGRAM has this open file, too; it is closed here then
 *   --begin              the child makes the namespaces: what is in PROGRAM's place is told in keep_root.c
 *   --user UID:GID       with --begin, for an ordinary user: with user namespaces, in which it is UID
 *   --thaw FILE VALUE    written when the sandbox is killed, so that a frozen one can die
 *   --attached           the end of standard input kills the sandbox
 *   --last PATH          the directory that DIRECTORY is in: removed, with the files in it, by the last to leave it
 * SIGTERM kills the sandbox. The exit status is PROGRAM's; 125 and a line on standard error when it was not started.
 */
#include "keep.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct keeping keeping = {.home = -1};

int complain(const char *what, const char *name, int error)
{
	dprintf(2, "%s %s: %s\n", what, name, strerror(error));
	return -error;
}

void give_up(const char *what, const char *name)
{
	complain(what, name, errno);
	_exit(NOT_STARTED);
}

int write_file(const char *path, const char *value)
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

/* Where the value of a step that is but a setting goes, NULL when it is none. */
static const char **setting(const char *name)
{
	if (!strcmp(name, "--into"))
		return &keeping.into;
	if (!strcmp(name, "--counter"))
		return &keeping.counter;
	if (!strcmp(name, "--pass"))
		return &keeping.passed;
	if (!strcmp(name, "--user"))
		return &keeping.user;
	if (!strcmp(name, "--last"))
		return &keeping.last;
	return NULL;
}

/* One step; how many arguments it took, 0 when it is none, -errno after a complaint. */
static int take_step(int left, char **arg)
{
	const char *path = left > 1 ? arg[1] : NULL, *value = left > 2 ? arg[2] : NULL;
	int done = -EINVAL, used = 3;

	if (!strcmp(arg[0], "--attached"))
		return keeping.attached = true, 1;
	if (!strcmp(arg[0], "--begin"))
		return keeping.begin = true, 1;
	if (!path)
		return 0;
	if (!strcmp(arg[0], "--make")) {
		used = 2;
		done = mkdir(path, 0755) < 0 ? -errno : note(&keeping.made, path, NULL);
	} else if (setting(arg[0])) {
		used = 2;
		*setting(arg[0]) = path;
		done = 0;
	} else if (!value) {
		return 0;
	} else if (!strcmp(arg[0], "--write")) {
		done = write_file(path, value);
	} else if (!strcmp(arg[0], "--inside")) {
		done = note(&keeping.inside, path, value);
	} else if (!strcmp(arg[0], "--thaw")) {
		done = note(&keeping.thaws, path, value);
	} else {
		return 0;
	}
	return done < 0 ? complain(arg[0] + 2, path, -done) : used;
}

/* Reap until there is no child; the status of PROGRAM once it is known, else -1. */
static bool reap(int *status)
{
	for (;;) {
		int how;
		pid_t pid = waitpid(-1, &how, WNOHANG);
		if (pid == keeping.program) {
			*status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
			keeping.killing = true;  /* again and again: a list of children may miss one while another ends */
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
	struct pollfd polled[2] = {{.fd = signals, .events = POLLIN}, {.fd = keeping.attached ? 0 : -1, .events = POLLIN}};
	int status = NOT_STARTED;

	while (!reap(&status)) {
		struct signalfd_siginfo signal;
		char byte;
		if (poll(polled, 2, keeping.killing ? 1000 : -1) == 0) {
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

	keeping.home = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (keeping.home < 0)
		return complain("open", directory, errno);
	int fd = openat(keeping.home, "keeper", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
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
	signal(SIGCHLD, SIG_DFL); /* where it is ignored, as whoever started us may, no end is told */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What whoever started us had open besides, such as a lock of a shell, is not to be held as long as the sandbox lives. */
static void close_others(int count, char **args)
{
	int passed = 2;

	for (int i = 0; i + 1 < count && strcmp(args[i], "--"); i++)
		if (!strcmp(args[i], "--pass"))
			passed = (int)strtol(args[i + 1], NULL, 10);
	close_all_but(passed, passed);
}

int keep_main(int count, char **args)
{
	close_others(count, args);
	int signals = listen_to_signals();
	int at = 1, used = 0;

	umask(022); /* what is made in a sandbox's root is for other users too */
	if (count < 1 || lock_directory(args[0]) < 0)
		return NOT_STARTED;
	keeping.directory = args[0];
	while (at < count && (used = take_step(count - at, args + at)) > 0)
		at += used;
	if (used < 0 || at + 1 >= count || strcmp(args[at], "--")) {
		if (used >= 0)
			complain("keep", at < count ? args[at] : "--", EINVAL);
		clear_away(args[0]);
		return NOT_STARTED;
	}
	keeping.program = start_program(args + at + 1);
	if (keeping.program < 0) {
		clear_away(args[0]);
		return NOT_STARTED;
	}
	int status = watch_over(signals);
	clear_away(args[0]);
	return status;
}
