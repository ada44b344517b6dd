/* --bind PIDFD ROOT (tree | top) [(ro | rw) SOURCE TARGET]...: mounts what is the host's in a sandbox that runs already. Runs on
 * the host, as root, with nothing of the agent's.
 *
 * PIDFD: an open pidfd of a process of the sandbox; ROOT: its root, open. Where the sandbox was begun in a chroot that may
 * not be the root of its mounts, which is the host's then. "tree": with all that is mounted below a source, "top": without. Every
 * source is taken where this program is started, before it enters the sandbox's mounts, and gets nosuid and nodev. What
 * is inside is hostile: no link on the way to a target is followed. Directories of a target that are missing are made,
 * in the sandbox's own root file system and in no other. Of a failure, which leaves what was mounted before, it writes
 * "ERRNO STAGE NUMBER" to standard output, NUMBER counts the binds, and ends with status 1.
 */
#include "agent.h"
#include "core.h"
#include "graft.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STATX_MOUNT = 0x1000, FIRST_BIND = 3, BIND_ARGS = 3, BIND_MOST = 1000 }; /* STATX_MNT_ID, which musl has not */

struct seen { u32 mask, unused[35]; u64 mount, rest[13]; };

static int failed(const char *stage, int number)
{
	printf("%d %s %d\n", errno, stage, number);
	fflush(stdout);
	return 1;
}

static u64 mount_of(int fd)
{
	struct seen seen = {0};
	if (syscall(SYS_statx, fd, "", EMPTY_PATH, STATX_MOUNT, &seen) < 0 || !(seen.mask & STATX_MOUNT))
		return 0;
	return seen.mount;
}

/* The root is mounted read-only, its file system is not: a mount of it that nobody else sees is made writable. Of every
 * other mount the file system may be the host's. */
static int make_in(const char *above, const char *name)
{
	struct attributes writable = {.clear = ATTR_RDONLY};
	int root = graft_place("/"), parent = graft_place(above), result = -1;
	u64 mount = root < 0 || parent < 0 ? 0 : mount_of(root);

	errno = EROFS;
	if (mount && mount == mount_of(parent)) {
		int own = (int)syscall(SYSCALL_OPEN_TREE, parent, "", TREE_CLONE | TREE_CLOEXEC | EMPTY_PATH);
		if (own >= 0 && mount_change(own, &writable, 0) == 0)
			result = mkdirat(own, name, 0755);
		int error = errno;
		if (own >= 0)
			close(own);
		errno = error;
	}
	int error = errno;
	close(root);
	close(parent);
	errno = error;
	return result;
}

/* The directories of an absolute path, from the top. */
static int make_all(const char *path)
{
	char *copy = strdup(path);

	for (char *slash = copy; slash;) {
		char *name = slash + 1, *next = strchr(name, '/');
		if (next)
			*next = 0;
		int there = graft_place(copy);
		if (there >= 0)
			close(there);
		*slash = 0;
		if (there < 0 && (errno != ENOENT || make_in(*copy ? copy : "/", name) < 0)) {
			free(copy);
			return -1;
		}
		*slash = '/';
		if (next)
			*next = '/';
		slash = next;
	}
	free(copy);
	return 0;
}

static int put(int tree, const char *target)
{
	int place = graft_place(target);

	if (place < 0 && errno == ENOENT && make_all(target) == 0)
		place = graft_place(target);
	return place < 0 ? -1 : graft_put(tree, place);
}

int bind_main(int count, char **args)
{
	static int trees[BIND_MOST];
	int binds = (count - FIRST_BIND) / BIND_ARGS;

	errno = EINVAL;
	if (count < FIRST_BIND || (count - FIRST_BIND) % BIND_ARGS || binds > BIND_MOST)
		return failed("arguments", 0);
	int process = (int)strtol(args[0], NULL, 10), root = (int)strtol(args[1], NULL, 10);
	int flags = strcmp(args[2], "tree") ? 0 : RECURSIVE;
	args += FIRST_BIND;
	umask(022);
	open_files_raise();
	for (int i = 0; i < binds; i++) {
		char **bind = args + i * BIND_ARGS;
		trees[i] = graft_take(bind[1], strcmp(bind[0], "rw") != 0, flags);
		if (trees[i] < 0)
			return failed("source", i);
	}
	if (setns(process, CLONE_NEWNS) < 0 || fchdir(root) < 0)
		return failed("enter", 0);
	for (int i = 0; i < binds; i++)
		if (put(trees[i], args[i * BIND_ARGS + 2]) < 0)
			return failed("target", i);
	return 0;
}
