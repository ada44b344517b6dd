/* What a process and the children that it waited for used so far, as /proc has it: of those that end with their pid
 * namespace the kernel tells nobody.
 */
#include "agent.h"
#include "supervisor.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096 };
/* Fields of stat, from its state on. */
enum { MINOR = 7, OF_CHILDREN_MINOR, MAJOR, OF_CHILDREN_MAJOR, USER, SYSTEM, OF_CHILDREN_USER, OF_CHILDREN_SYSTEM, FIELDS };

/* The beginning of a file of a process; empty where it cannot be read. */
static const char *text_of(pid_t pid, const char *name, char text[TEXT_BYTES])
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	read_text(AT_FDCWD, path, text, TEXT_BYTES);
	return text;
}

/* The one that `pid` has had for the longest, 0 where that cannot be told. */
static pid_t first_child(pid_t pid)
{
	char name[32], text[TEXT_BYTES];
	snprintf(name, sizeof name, "task/%d/children", pid);
	return atoi(text_of(pid, name, text));
}

static struct timeval time_of(u64 ticks)
{
	u64 second = (u64)sysconf(_SC_CLK_TCK);
	return (struct timeval){(time_t)(ticks / second), (suseconds_t)(ticks % second * 1000000 / second)};
}

struct rusage used_below(pid_t pid)
{
	char text[TEXT_BYTES];
	u64 fields[FIELDS] = {0};
	pid_t child = first_child(pid);
	if (!child)
		return (struct rusage){0};
	char *at = strrchr(text_of(child, "stat", text), ')');
	for (int i = 0; at && i < FIELDS && (at = strchr(at, ' ')); i++)
		fields[i] = strtoull(++at, NULL, 10);
	struct rusage used = {
		.ru_utime = time_of(fields[USER] + fields[OF_CHILDREN_USER]),
		.ru_stime = time_of(fields[SYSTEM] + fields[OF_CHILDREN_SYSTEM]),
		.ru_minflt = (long)(fields[MINOR] + fields[OF_CHILDREN_MINOR]),
		.ru_majflt = (long)(fields[MAJOR] + fields[OF_CHILDREN_MAJOR]),
	};
	const char *peak = strstr(text_of(child, "status", text), "\nVmHWM:");
	if (peak)
		used.ru_maxrss = strtol(peak + strlen("\nVmHWM:"), NULL, 10);
	return used;
}
