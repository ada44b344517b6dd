/* WALK and the recursive REMOVE, in a worker: directories are opened one below the other, links never followed. */
#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC, BATCH_MOST = 512 };

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* ---- WALK ---- */

struct walk {
	u64 count, most;
	u32 depth, in_batch;
	u8 *batch, *at;
	char path[PATH_MAX];
};

static void send_batch(struct walk *walk)
{
	pack_u32(walk->batch, walk->in_batch);
	if (walk->in_batch)
		worker_send(ANSWER_ENTRIES, walk->batch, (size_t)(walk->at - walk->batch));
	walk->at = walk->batch + 4;
	walk->in_batch = 0;
}

static void add(struct walk *walk, size_t size, const struct stat *st)
{
	if (walk->in_batch == BATCH_MOST || walk->at + 4 + size + STAT_BYTES > walk->batch + WORKER_MESSAGE_BYTES)
		send_batch(walk);
	walk->at = pack_str(walk->at, walk->path, size);
	walk->at = pack_stat(walk->at, st);
	walk->in_batch++;
	walk->count++;
}

static int walk_below(struct walk *walk, int fd, size_t above, u32 level);

/* One entry and, when it is a directory, what is below it. What is gone or may not be read is left out. */
static int walk_entry(struct walk *walk, int fd, const char *name, size_t above, u32 level)
{
	struct stat st;
	size_t size = above + strlen(name);

	if (size + 1 >= PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(walk->path + above, name);
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT || errno == EACCES ? 0 : -errno;
	add(walk, size, &st);
	if (!S_ISDIR(st.st_mode) || level >= walk->depth)
		return 0;
	int below = openat(fd, name, OPEN_FLAGS | O_NOFOLLOW);
	if (below < 0)
		return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : 0;
	walk->path[size] = '/';
	return walk_below(walk, below, size + 1, level + 1);
}

static int walk_below(struct walk *walk, int fd, size_t above, u32 level)
{
	DIR *directory = fdopendir(fd);
	const struct dirent *entry;
	int error = 0;

	if (!directory)
		return -errno;
	while (error == 0 && walk->count < walk->most && (entry = readdir(directory)))
		if (!is_dots(entry->d_name))
			error = walk_entry(walk, fd, entry->d_name, above, level);
	closedir(directory);
	return error;
}

static int run_walk(const struct job *job, u64 *done)
{
	static struct walk walk;
	int fd = open(job->path, OPEN_FLAGS);

	if (fd < 0)
		return -errno;
	open_many();
	walk.most = job->most;
	walk.depth = job->depth;
	walk.batch = malloc(WORKER_MESSAGE_BYTES);
	if (!walk.batch)
		return -ENOMEM;
	walk.at = walk.batch + 4;
	int error = walk_below(&walk, fd, 0, 1);
	send_batch(&walk);
	*done = walk.count;
	return error;
}

int op_walk(struct conn *conn, u32 id, struct reader *r)
{
	static struct cred cred;
	static struct job job;

	(void)conn;
	job = (struct job){.run = run_walk, .windowed = true};
	read_cred(r, &cred);
	int error = read_path(r, job.path);
	job.depth = read_u32(r);
	job.most = read_u64(r);
	if (!read_end(r) || error < 0)
		return error;
	return worker_start(id, &cred, &job);
}

/* ---- REMOVE ---- */

struct place {  /* a directory on the way down */
	dev_t device;
	ino_t inode;
};
struct removal {
	struct place *way;
	size_t depth, room;
	int fd;
	u64 count;
};

static int descend(struct removal *removal, const char *name)
{
	struct stat st;
	int below = openat(removal->fd, name, OPEN_FLAGS | O_NOFOLLOW);

	if (below < 0)
		return -errno;
	if (removal->depth == removal->room) {
		size_t room = removal->room * 2 + 64;
		struct place *way = reallocarray(removal->way, room, sizeof *way);
		if (!way)
			return -ENOMEM;
		removal->way = way;
		removal->room = room;
	}
	if (fstat(removal->fd, &st) < 0)
		return -errno;
	removal->way[removal->depth++] = (struct place){st.st_dev, st.st_ino};
	close(removal->fd);
	removal->fd = below;
	return 0;
}

/* Back up, unless somebody moved the directory meanwhile: then it is not ours to go on from. */
static int ascend(struct removal *removal)
{
	struct stat st;
	int above = openat(removal->fd, "..", OPEN_FLAGS);

	if (above < 0)
		return -errno;
	const struct place *expected = &removal->way[--removal->depth];
	close(removal->fd);
	removal->fd = above;
	if (fstat(above, &st) < 0)
		return -errno;
	return st.st_dev == expected->device && st.st_ino == expected->inode ? 0 : -EBUSY;
}

/* Remove an entry. 1: it is a full directory. */
static int remove_entry(struct removal *removal, const char *name)
{
	if (unlinkat(removal->fd, name, 0) == 0) {
		removal->count++;
		return 0;
	}
	if (errno != EISDIR)
		return errno == ENOENT ? 0 : -errno;
	if (unlinkat(removal->fd, name, AT_REMOVEDIR) == 0) {
		removal->count++;
		return 0;
	}
	if (errno == ENOTEMPTY || errno == EEXIST)
		return 1;
	return errno == ENOENT ? 0 : -errno;
}

/* Empty the present directory up to its first full subdirectory, and go down into that. 0: it is empty. */
static int empty_here(struct removal *removal)
{
	int copy = openat(removal->fd, ".", OPEN_FLAGS);
	DIR *directory = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *entry;
	int result = 0;

	if (!directory)
		return -errno;
	while (result == 0 && (entry = readdir(directory)))
		if (!is_dots(entry->d_name)) {
			result = remove_entry(removal, entry->d_name);
			if (result == 1) {
				int error = descend(removal, entry->d_name);
				result = error < 0 ? error : 1;
			}
		}
	closedir(directory);
	return result;
}

static int run_remove(const struct job *job, u64 *done)
{
	struct removal removal = {.fd = open(job->path, OPEN_FLAGS | O_NOFOLLOW)};
	int result;

	if (removal.fd < 0)
		return -errno;
	for (;;) {
		result = empty_here(&removal);
		if (result == 0 && removal.depth == 0)
			break;
		if (result == 0)
			result = ascend(&removal);
		if (result < 0)
			return result;
	}
	if (rmdir(job->path) < 0)
		return -errno;
	*done = removal.count + 1;
	return 0;
}

int remove_tree_start(u32 id, const struct cred *cred, const char *path)
{
	static struct job job;

	job = (struct job){.run = run_remove};
	strcpy(job.path, path);
	return worker_start(id, cred, &job);
}
