/* All descendants of the calling process, found in /proc. */
#include "agent.h"
#include "supervisor.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PROCESSES_CAP = 65536, CHILDREN_MOST = 16 };
enum { PARENT = 2, THREADS = 18 };  /* fields of stat, from its state on */
enum { UNKNOWN, VISITING, INSIDE, OUTSIDE };

struct process {
	pid_t pid, parent;
	u8 place;
};

static struct process *processes;
static int count;

/* 0 when it is gone. */
static int stat_field(int proc, pid_t pid, int number)
{
	char name[32], text[512];
	snprintf(name, sizeof name, "%d/stat", pid);
	if (read_text(proc, name, text, sizeof text) <= 0)
		return 0;
	const char *at = strrchr(text, ')');
	while (at && number--) {
		at = strchr(at, ' ');
		at += at != NULL;
	}
	return at ? atoi(at) : 0;
}

/* The parent of `pid`, 0 when it is gone. A zombie counts: only its first thread may have ended. */
static pid_t parent_of(int proc, pid_t pid) { return stat_field(proc, pid, PARENT); }

static bool list_processes(DIR *directory)
{
	struct dirent *entry;
	count = 0;
	if (!processes)
		processes = malloc(PROCESSES_CAP * sizeof *processes);
	if (!processes)
		return false;
	while (count < PROCESSES_CAP && (entry = readdir(directory))) {
		pid_t pid = atoi(entry->d_name);
		pid_t parent = pid > 0 ? parent_of(dirfd(directory), pid) : 0;
		if (parent > 0)
			processes[count++] = (struct process){pid, parent, UNKNOWN};
	}
	return true;
}

/* /proc lists process ids in rising order. */
static struct process *find(pid_t pid)
{
	int low = 0, high = count;
	while (low < high) {
		int middle = (low + high) / 2;
		if (processes[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && processes[low].pid == pid ? &processes[low] : NULL;
}

/* Whether it descends from `root`; what is learned of its ancestors is kept. */
static bool descends(struct process *process, pid_t root, bool (*spared)(pid_t))
{
	struct process *at = process;
	u8 place = OUTSIDE;
	while (at && at->place == UNKNOWN && at->pid != root) {
		at->place = VISITING;
		if (spared && spared(at->pid))
			break;
		if (at->parent == root) {
			place = INSIDE;
			break;
		}
		at = find(at->parent);
	}
	if (at && at->place == INSIDE)
		place = INSIDE;
	for (at = process; at && at->place == VISITING; at = find(at->parent))
		at->place = place;
	return process->place == INSIDE;
}

static void signal_one(int proc, const struct process *process, int number)
{
	int fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
	if (fd < 0) {
		if (errno != ESRCH)
			kill(process->pid, number);
		return;
	}
	/* The id may have passed to a stranger before the descriptor was opened, not after. */
	pid_t parent = parent_of(proc, process->pid);
	if (parent == process->parent || parent == getpid())
		syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
	close(fd);
}

/* Those that the first thread of `pid` made: how many, -1 where that cannot be told or they are too many. */
static int children_of(int proc, pid_t pid, pid_t children[CHILDREN_MOST])
{
	char name[64], text[256];
	int found = 0;
	snprintf(name, sizeof name, "%d/task/%d/children", pid, pid);
	ssize_t size = read_text(proc, name, text, sizeof text);
	if (size < 0 || size == sizeof text - 1)
		return -1;
	for (char *at = text, *end; *at; at = end + strspn(end, " ")) {
		if (found == CHILDREN_MOST)
			return -1;
		children[found++] = (pid_t)strtol(at, &end, 10);
	}
	return found;
}

/* Children that have neither children nor threads, as most commands, are the whole family: to find that out does not
 * cost a look at every process there is. 0: it is not so. */
static int signal_children(int proc, int number)
{
	pid_t children[CHILDREN_MOST], below[CHILDREN_MOST];
	int found = children_of(proc, getpid(), children);
	for (int i = 0; i < found; i++)
		if (children_of(proc, children[i], below) || stat_field(proc, children[i], THREADS) != 1)
			return 0;
	for (int i = 0; i < found; i++)
		signal_one(proc, &(struct process){children[i], getpid(), INSIDE}, number);
	return found > 0 ? found : 0;
}

int family_signal(int number, bool (*spared)(pid_t))
{
	DIR *directory = opendir("/proc");
	int found = directory && number == SIGKILL && !spared ? signal_children(dirfd(directory), number) : 0;
	if (found) {
		closedir(directory);
		return found;
	}
	if (!directory || !list_processes(directory)) {
		if (directory)
			closedir(directory);
		return WALK_FAILED;
	}
	for (int i = 0; i < count; i++)
		if (processes[i].pid != getpid() && descends(&processes[i], getpid(), spared)) {
			signal_one(dirfd(directory), &processes[i], number);
			found++;
		}
	closedir(directory);
	return found;
}
