/* openat2(2), as in linux/openat2.h, which musl has not. */
#ifndef RINGFENCE_OPENING_H
#define RINGFENCE_OPENING_H

#include "agent.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { WITHOUT_LINKS = 0x04, BENEATH = 0x08, IN_ROOT = 0x10 };

/* A descriptor of `path` from the directory `at`; -1 with errno. how: of the words above. */
static inline int open_how(int at, const char *path, int flags, u64 how)
{
	struct { u64 flags, mode, resolve; } all = {.flags = (u64)flags, .resolve = how};
	return (int)syscall(SYS_openat2, at, path, &all, sizeof all);
}

#endif
