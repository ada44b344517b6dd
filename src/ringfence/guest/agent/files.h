/* What the file operations share. */
#ifndef RINGFENCE_FILES_H
#define RINGFENCE_FILES_H

#include "agent.h"

#include <limits.h>
#include <sys/stat.h>

enum { STAT_BYTES = 48, ENTRY_BYTES = 4 + NAME_MAX + 1 + STAT_BYTES };

/* An absolute path into `into`: 0, -EINVAL when it is not absolute, -ENAMETOOLONG. */
int read_path(struct reader *r, char into[PATH_MAX]);
/* The fields of `stat`, also into plain memory: returns what follows them. */
void put_stat(struct conn *conn, const struct stat *st);
u8 *pack_stat(u8 *into, const struct stat *st);
u8 *pack_u32(u8 *into, u32 value);
u8 *pack_u64(u8 *into, u64 value);
u8 *pack_str(u8 *into, const char *text, size_t size);
/* as_user, and exact modes for what is made. Leave with files_leave before returning to the loop. */
int files_enter(const struct cred *cred);
void files_leave(void);
/* mkdir -p of all that is above `path` (which is changed and restored), or of `path` too. As the present user. */
int make_parents(char *path, mode_t mode);
int make_directories(char *path, mode_t mode);
/* -EISDIR or -EINVAL when it is no regular file, -EACCES when procfs would give away the agent itself (or would be
 * written to); else 0 with its stat. */
int check_regular(int fd, bool writes, struct stat *st);
/* rename(2) that fails with -EEXIST when `to` exists. */
int rename_new(const char *from, const char *to);

/* ---- worker.c: what may take long runs in a process of its own, as the user ------------------------------------ */

enum { WORKER_MESSAGE_BYTES = 64 * 1024 };
struct job {
	/* In the worker: work, worker_send parts of the answer, then return 0 (then `done` is sent as DONE's u64) or -errno. */
	int (*run)(const struct job *job, u64 *done);
	char path[PATH_MAX], to[PATH_MAX];
	u32 depth;
	u64 most;
	bool recursive;
	bool windowed;  /* the parts obey the window */
};
int worker_start(u32 id, const struct cred *cred, const struct job *job);
/* In the worker: one frame of the answer; waits for room. Ends the worker when nobody listens. */
void worker_send(u8 op, const void *payload, size_t size);
/* In the worker: as many open files as its hard limit has. */
void open_many(void);

/* ---- tree.c ----------------------------------------------------------------------------------------------------- */

/* REMOVE of a full directory, recursively. */
int remove_tree_start(u32 id, const struct cred *cred, const char *path);

#endif
