/* The OOM kills of the sandbox's memory cgroup, where its file was given or can be read inside. */
#include "agent.h"
#include "core.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int file = -1;

u64 oom_kills(void)
{
	char text[1024];
	ssize_t size = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
	if (size <= 0)
		return UINT64_MAX;
	text[size] = 0;
	char *line = strstr(text, "oom_kill ");
	return line ? strtoull(line + strlen("oom_kill "), NULL, 10) : UINT64_MAX;
}

static bool open_counter(const char *counter)
{
	file = open(counter, O_RDONLY | O_CLOEXEC);
	if (file >= 0 && oom_kills() != UINT64_MAX)
		return true;
	if (file >= 0)
		close(file);
	file = -1;
	return false;
}

void oom_given(int descriptor)
{
	file = fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0 ? -1 : descriptor;
}

void oom_start(void)
{
	if (file >= 0)
		return;
	if (!open_counter("/sys/fs/cgroup/memory.events"))
		open_counter("/sys/fs/cgroup/memory/memory.oom_control");
}
