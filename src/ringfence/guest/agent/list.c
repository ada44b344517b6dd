/* --list ROOT NAMES MOST: what stands in some directories of a tree, for the host's look at a repository. Runs on the
 * host, with nothing of the agent's.
 *
 * Standard input, a file: paths below the open directory ROOT, each ended by a zero byte. To the open file NAMES: for each
 * of these the names in it and an empty one, each ended by a zero byte. Standard output: a row of ROW_WORDS for each
 * name, in that order. No link is followed. More than MOST rows, or anything that cannot be read, ends it with status 1.
 */
#include "agent.h"
#include "opening.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ROW_WORDS = 10, NANOSECONDS = 1000000000 };

struct found { u64 inode; int64_t next; u16 size; u8 kind; char name[]; };
struct out {
	int fd;
	size_t used;
	char data[CHUNK_BYTES];
};

static struct out names, rows = {.fd = STDOUT_FILENO};
static u64 left;

static bool flush(struct out *out)
{
	for (size_t done = 0; done < out->used;) {
		ssize_t put = write(out->fd, out->data + done, out->used - done);
		if (put < 0)
			return false;
		done += (size_t)put;
	}
	out->used = 0;
	return true;
}

static bool put(struct out *out, const void *data, size_t size)
{
	if (out->used + size > sizeof out->data && !flush(out))
		return false;
	memcpy(out->data + out->used, data, size);
	out->used += size;
	return true;
}

/* The nearest time that 64 bits hold. */
static u64 when(struct timespec time)
{
	int64_t all;
	if (__builtin_mul_overflow((int64_t)time.tv_sec, NANOSECONDS, &all)
		|| __builtin_add_overflow(all, (int64_t)time.tv_nsec, &all))
		return (u64)(time.tv_sec < 0 ? INT64_MIN : INT64_MAX);
	return (u64)all;
}

/* The last word is the ctime of what is no regular file: one of these has another with each link to it. Of git's own
 * directory nothing counts but what it is. */
static bool put_row(const char *name, const struct stat *is)
{
	u64 row[ROW_WORDS] = {is->st_mode & S_IFMT, [6] = is->st_dev, is->st_ino};
	if (strcmp(name, ".git")) {
		row[0] = is->st_mode;
		row[1] = is->st_uid;
		row[2] = is->st_gid;
		row[3] = (u64)is->st_size;
		row[4] = when(is->st_mtim);
		row[5] = when(is->st_ctim);
		row[8] = is->st_nlink;
		row[9] = S_ISREG(is->st_mode) ? 0 : row[5];
	}
	return put(&rows, row, sizeof row);
}

static bool list_one(int directory, const char *name)
{
	struct stat is;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return true;
	return left-- && fstatat(directory, name, &is, AT_SYMLINK_NOFOLLOW) == 0
		&& put(&names, name, strlen(name) + 1) && put_row(name, &is);
}

static bool list_all(int directory)
{
	static _Alignas(struct found) char data[CHUNK_BYTES];
	long size;
	while ((size = syscall(SYS_getdents64, directory, data, sizeof data)) > 0)
		for (char *at = data; at < data + size; at += ((struct found *)at)->size)
			if (!list_one(directory, ((struct found *)at)->name))
				return false;
	return size == 0 && put(&names, "", 1);
}

static bool list_directory(int root, const char *path)
{
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int directory = open_how(root, *path ? path : ".", flags, BENEATH | WITHOUT_LINKS);
	bool done = directory >= 0 && list_all(directory);
	if (directory >= 0)
		close(directory);
	return done;
}

int list_main(int count, char **args)
{
	struct stat input;
	if (count != 3 || fstat(STDIN_FILENO, &input) < 0 || input.st_size <= 0)
		return 1;
	size_t size = (size_t)input.st_size;
	const char *paths = mmap(NULL, size, PROT_READ, MAP_PRIVATE, STDIN_FILENO, 0);
	if (paths == MAP_FAILED || paths[size - 1])
		return 1;
	int root = atoi(args[0]);
	names.fd = atoi(args[1]);
	left = strtoull(args[2], NULL, 10);
	for (const char *path = paths; path < paths + size; path += strlen(path) + 1)
		if (!list_directory(root, path))
			return 1;
	return flush(&names) && flush(&rows) ? 0 : 1;
}
