/* Mounts of what is the host's: taken where this program is started, put where a sandbox sees them. */
#ifndef RINGFENCE_GRAFT_H
#define RINGFENCE_GRAFT_H

#include "agent.h"

#include <fcntl.h>

/* As in linux/mount.h and linux/fcntl.h, which musl has not. RECURSIVE: with all that is mounted below. */
enum { TREE_CLONE = 1, TREE_CLOEXEC = O_CLOEXEC, RECURSIVE = 0x8000, EMPTY_PATH = 0x1000, ATTR_RDONLY = 1 };
enum { SYSCALL_OPEN_TREE = 428, SYSCALL_MOUNT_SETATTR = 442 };

struct attributes { u64 set, clear, propagation, user_namespace; };

int mount_change(int tree, const struct attributes *attributes, int flags);
/* A mount of `path` that is nowhere yet, with nosuid and nodev, of which nobody else's mounts are heard; -1 with errno.
 * flags: RECURSIVE or 0. */
int graft_take(const char *path, bool read_only, int flags);
/* The same of a device, which can be used there. */
int graft_take_device(const char *path);
/* A descriptor of `path` in the sandbox, whose root is the working directory by now: no link on the way is followed. */
int graft_place(const char *path);
/* Mount `tree` at `place`, which is closed; -1 with errno. */
int graft_put(int tree, int place);

#endif
