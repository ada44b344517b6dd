/* All descendants of the calling process, found in /proc. */
#include "agent.h"
#include "supervisor.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PROCESSES_CAP = 65536 };
enum { UNKNOWN, VISITING, INSIDE, OUTSIDE };

struct process {
	pid_t pid, parent;
	u8 place;
};

static struct process *processes;
static int count;

/* The parent of `pid`, 0 when it is gone. A zombie counts: only its first thread may have ended. */
static pid_t parent_of(int proc, pid_t pid)
{
	char name[32], text[512];
	snprintf(name, sizeof name, "%d/stat", pid);
	int fd = openat(proc, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t size = read(fd, text, sizeof text - 1);
	close(fd);
	if (size <= 0)
		return 0;
	text[size] = 0;
	char *after = strrchr(text, ')');
	if (!after || strlen(after) < 5)
		return 0;
	return atoi(after + 4);
}

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

int family_signal(int number, bool (*spared)(pid_t))
{
	DIR *directory = opendir("/proc");
	int found = 0;
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
