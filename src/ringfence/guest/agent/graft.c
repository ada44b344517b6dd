/* What of the host is mounted in a sandbox, whose own files are hostile. */
#include "graft.h"
#include "opening.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { MOVE_FROM_EMPTY = 0x04, MOVE_TO_EMPTY = 0x40, ATTR_NOSUID = 2, ATTR_NODEV = 4, PRIVATE = 1 << 18 };
enum { SYSCALL_MOVE_MOUNT = 429 };

int mount_change(int tree, const struct attributes *attributes, int flags)
{
	return (int)syscall(SYSCALL_MOUNT_SETATTR, tree, "", EMPTY_PATH | flags, attributes, sizeof *attributes);
}

static int take(const char *path, u64 set, int flags)
{
	struct attributes wanted = {.set = ATTR_NOSUID | set, .propagation = PRIVATE};
	int tree = (int)syscall(SYSCALL_OPEN_TREE, AT_FDCWD, path, TREE_CLONE | TREE_CLOEXEC | flags);
	return tree < 0 || mount_change(tree, &wanted, flags) < 0 ? -1 : tree;
}

int graft_take(const char *path, bool read_only, int flags)
{
	return take(path, ATTR_NODEV | (read_only ? ATTR_RDONLY : 0), flags);
}

int graft_take_device(const char *path)
{
	return take(path, 0, 0);
}

int graft_place(const char *path)
{
	return open_how(AT_FDCWD, path, O_PATH | O_CLOEXEC, IN_ROOT | WITHOUT_LINKS);
}

int graft_put(int tree, int place)
{
	int done = (int)syscall(SYSCALL_MOVE_MOUNT, tree, "", place, "", MOVE_FROM_EMPTY | MOVE_TO_EMPTY);
	int error = errno;
	close(place);
	errno = error;
	return done;
}
