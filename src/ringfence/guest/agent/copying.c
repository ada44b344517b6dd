/* COPY, in a worker: a file, or a tree without following its links. */
#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, AT_ONCE = 16 * 1024 * 1024 };

static int copy_data(int from, int to, u64 *bytes)
{
	bool by_range = true;

	for (;;) {
		ssize_t size = by_range ? copy_file_range(from, NULL, to, NULL, AT_ONCE, 0) : sendfile(to, from, NULL, AT_ONCE);
		if (size > 0) {
			*bytes += (u64)size;
		} else if (by_range && (size == 0 || errno != EINTR)) {
			/* Not across these file systems, or a file that has no size: sendfile tells the truth. */
			by_range = false;
		} else if (size == 0) {
			return 0;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
}

/* Copy the regular file `from` (closed here) to a name below `directory`. */
static int copy_file(int from, int directory, const char *name, int how, u64 *bytes)
{
	struct stat st, target;
	int error = check_regular(from, false, &st);

	if (error == 0) {
		int flags = O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | how;
		int to = openat(directory, name, flags, st.st_mode & 07777);
		error = to < 0 ? (errno == ENXIO ? -EINVAL : -errno) : check_regular(to, true, &target);
		if (error == 0 && target.st_dev == st.st_dev && target.st_ino == st.st_ino)
			error = -EINVAL;
		if (error == 0 && ftruncate(to, 0) < 0)
			error = -errno;
		if (error == 0)
			error = copy_data(from, to, bytes);
		if (to >= 0)
			close(to);
	}
	close(from);
	return error;
}

static int copy_link(int from, const char *name, int to, const char *new_name)
{
	char target[PATH_MAX];
	ssize_t size = readlinkat(from, name, target, sizeof target - 1);

	if (size < 0)
		return -errno;
	target[size] = 0;
	return symlinkat(target, to, new_name) == 0 ? 0 : -errno;
}

static int copy_directory(int from, int to, const struct stat *made, u64 *bytes);

static int copy_below(int from, const char *name, int to, const char *new_name, const struct stat *made, u64 *bytes)
{
	struct stat st;

	int source = openat(from, name, DIRECTORY_FLAGS);
	if (source < 0 || fstat(source, &st) < 0)
		return -errno;
	if (made && st.st_dev == made->st_dev && st.st_ino == made->st_ino) {
		close(source);
		return -EINVAL;
	}
	if (mkdirat(to, new_name, 0700) < 0 && errno != EEXIST)
		return -errno;
	int target = openat(to, new_name, DIRECTORY_FLAGS);
	if (target < 0)
		return -errno;
	struct stat top;
	if (!made && fstat(target, &top) < 0)
		return -errno;
	int error = copy_directory(source, target, made ? made : &top, bytes);
	if (error == 0 && fchmod(target, st.st_mode & 07777) < 0 && errno != EPERM)
		error = -errno;
	close(target);
	return error;
}

/* One entry of a tree. `made`: the copy's top, which is not copied into itself. */
static int copy_entry(int from, const char *name, int to, const char *new_name, const struct stat *made, u64 *bytes)
{
	struct stat st;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return copy_below(from, name, to, new_name, made, bytes);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, name, to, new_name);
	if (!S_ISREG(st.st_mode))
		return mknodat(to, new_name, st.st_mode, st.st_rdev) == 0 ? 0 : -errno;
	int source = openat(from, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW);
	return source < 0 ? -errno : copy_file(source, to, new_name, made ? O_NOFOLLOW : 0, bytes);
}

/* All that is in `from`, which is closed here. */
static int copy_directory(int from, int to, const struct stat *made, u64 *bytes)
{
	DIR *directory = fdopendir(from);
	const struct dirent *entry;
	int error = 0;

	if (!directory)
		return -errno;
	while (error == 0 && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			error = copy_entry(from, entry->d_name, to, entry->d_name, made, bytes);
	closedir(directory);
	return error;
}

static int run_copy(const struct job *job, u64 *done)
{
	open_many();
	if (job->recursive)
		return copy_entry(AT_FDCWD, job->path, AT_FDCWD, job->to, NULL, done);
	int from = open(job->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return from < 0 ? -errno : copy_file(from, AT_FDCWD, job->to, 0, done);
}

int op_copy(struct conn *conn, u32 id, struct reader *r)
{
	static struct cred cred;
	static struct job job;

	(void)conn;
	job = (struct job){.run = run_copy};
	read_cred(r, &cred);
	job.recursive = read_u8(r);
	int first = read_path(r, job.path), second = read_path(r, job.to);
	if (!read_end(r))
		return 0;
	if (first < 0 || second < 0)
		return first < 0 ? first : second;
	return worker_start(id, &cred, &job);
}
