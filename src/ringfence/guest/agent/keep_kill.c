/* How the keeper ends a sandbox. */
#include "keep.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The parent of a process, 0 when there is none. */
static pid_t parent_of(pid_t pid)
{
	char name[32], text[STAT_BYTES];
	snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
	if (read_text(AT_FDCWD, name, text, sizeof text) < 0)
		return 0;
	char *after = strrchr(text, ')');
	return after && strlen(after) > 4 ? (pid_t)strtol(after + 4, NULL, 10) : 0;
}

/* The guest as PROGRAM told of it, 0 when it did not yet. */
static pid_t guest(void)
{
	char text[STAT_BYTES];
	if (read_text(keeping.home, "info", text, sizeof text) < 0)
		return 0;
	char *at = strstr(text, "\"child-pid\":");
	return at ? (pid_t)strtol(at + strlen("\"child-pid\":"), NULL, 10) : 0;
}

void kill_sandbox(void)
{
	pid_t pid = guest();
	int handle = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	keeping.killing = true;
	if (handle >= 0 && parent_of(pid) == keeping.program)
		syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0);
	else
		kill(keeping.program, SIGKILL);
	if (handle >= 0)
		close(handle);
	for (int i = 0; i < keeping.thaws.count; i++)
		write_file(keeping.thaws.list[i].path, keeping.thaws.list[i].value);
}

/* Kill our children; true where the kernel lists them. */
static bool kill_listed(void)
{
	char text[STAT_BYTES];

	if (read_text(AT_FDCWD, "/proc/thread-self/children", text, sizeof text) < 0)
		return false;
	char *at = text, *end;
	for (long pid; (pid = strtol(at, &end, 10)) > 1 && *end == ' '; at = end)
		kill((pid_t)pid, SIGKILL);
	return true;
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

void kill_children(void)
{
	for (int i = 0; i < keeping.thaws.count; i++)
		write_file(keeping.thaws.list[i].path, keeping.thaws.list[i].value);
	if (!kill_listed())
		kill_found();
}
