/* The user namespaces of a sandbox that an ordinary user starts. There are two, as where bubblewrap makes them: the outer one
 * owns the sandbox's mounts and other namespaces, and the keeper's child has all capabilities in it, as its root, while it
 * makes them. The guest and its commands are in the inner one, as the one user there is, with a copy of the mounts: what
 * was mounted before can be neither taken away nor be made writable there. No other can be made below. */
#include "capabilities.h"
#include "keep.h"

#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ID_ROOM = 64 };

static unsigned host_uid, host_gid;

static void write_or_give_up(const char *path, const char *value)
{
	int done = write_file(path, value);
	if (done < 0) {
		errno = -done;
		give_up("write", path);
	}
}

/* This process, which alone is in the namespace, has one user and one group there. */
static void map(unsigned uid, unsigned outer_uid, unsigned gid, unsigned outer_gid)
{
	char text[ID_ROOM];

	snprintf(text, sizeof text, "%u %u 1\n", uid, outer_uid);
	write_or_give_up("/proc/self/uid_map", text);
	snprintf(text, sizeof text, "%u %u 1\n", gid, outer_gid);
	write_or_give_up("/proc/self/gid_map", text);
}

void user_remember(void)
{
	host_uid = geteuid();
	host_gid = getegid();
}

void user_outer(void)
{
	write_or_give_up("/proc/self/setgroups", "deny"); /* else the kernel takes no map of groups */
	map(0, host_uid, 0, host_gid);
}

/* What --enter needs outlives the execve. */
static void keep_capabilities(void)
{
	static const u32 wanted = 1u << CAP_SETPCAP | 1u << CAP_SYS_ADMIN;
	struct capability_header header = {.version = CAPABILITY_VERSION};
	struct capability_half data[CAPABILITY_HALVES] = {{wanted, wanted, wanted}};

	if (syscall(SYS_capset, &header, data) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETPCAP, 0, 0) ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0))
		give_up("keep", "capabilities");
}

void user_inner(const char *ids)
{
	unsigned uid, gid;

	errno = EINVAL;
	if (sscanf(ids, "%u:%u", &uid, &gid) != 2)
		give_up("user", ids);
	write_or_give_up("/proc/sys/user/max_user_namespaces", "1");
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		give_up("enter", "the user's namespace");
	prctl(PR_SET_DUMPABLE, 1); /* it has lost that, and with it the files of its /proc */
	map(uid, 0, gid, 0);
	keep_capabilities();
}
