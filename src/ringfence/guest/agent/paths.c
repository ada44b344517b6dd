/* What the file operations share: paths, stat on the wire, acting as a user. */
#include "files.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { PROCFS = 0x9fa0, NO_REPLACE = 1 };

static mode_t kept_mask;

int read_path(struct reader *r, char into[PATH_MAX])
{
	struct bytes path = read_str(r);

	if (r->bad || path.size == 0 || path.data[0] != '/')
		return -EINVAL;
	return copy_str(path, into, PATH_MAX) ? 0 : -ENAMETOOLONG;
}

u8 *pack_u32(u8 *into, u32 value)
{
	for (int i = 0; i < 4; i++)
		*into++ = (u8)(value >> (8 * i));
	return into;
}

u8 *pack_u64(u8 *into, u64 value)
{
	return pack_u32(pack_u32(into, (u32)value), (u32)(value >> 32));
}

u8 *pack_str(u8 *into, const char *text, size_t size)
{
	into = pack_u32(into, (u32)size);
	memcpy(into, text, size);
	return into + size;
}

u8 *pack_stat(u8 *into, const struct stat *st)
{
	int64_t mtime = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;

	into = pack_u32(into, st->st_mode);
	into = pack_u32(into, st->st_uid);
	into = pack_u32(into, st->st_gid);
	into = pack_u64(into, (u64)st->st_size);
	into = pack_u64(into, (u64)st->st_blocks);
	into = pack_u64(into, (u64)mtime);
	into = pack_u64(into, st->st_ino);
	return pack_u32(into, (u32)st->st_nlink);
}

void put_stat(struct conn *conn, const struct stat *st)
{
	u8 packed[STAT_BYTES];

	pack_stat(packed, st);
	put_raw(conn, packed, sizeof packed);
}

int files_enter(const struct cred *cred)
{
	int error = as_user(cred);

	if (error < 0)
		return error;
	kept_mask = umask(0);
	return 0;
}

void files_leave(void)
{
	umask(kept_mask);
	as_self();
}

static int make_directory(const char *path, mode_t mode)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (stat(path, &st) < 0)
		return errno == ENOENT ? -EEXIST : -errno;
	return S_ISDIR(st.st_mode) ? 0 : -EEXIST;
}

int make_directories(char *path, mode_t mode)
{
	int error = make_directory(path, mode);

	if (error != -ENOENT)
		return error;
	error = make_parents(path, mode);
	return error < 0 ? error : make_directory(path, mode);
}

int make_parents(char *path, mode_t mode)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		int error = make_directory(path, mode);
		*slash = '/';
		if (error == -EEXIST && slash[strspn(slash, "/")])
			return -ENOTDIR;
		if (error < 0)
			return error;
	}
	return 0;
}

int check_regular(int fd, bool writes, struct stat *st)
{
	struct statfs fs;
	char link[32], path[64], own[32];

	if (fstat(fd, st) < 0)
		return -errno;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	if (!S_ISREG(st->st_mode))
		return -EINVAL;
	if (fstatfs(fd, &fs) < 0 || (u32)fs.f_type != PROCFS)
		return 0;
	if (writes)
		return -EACCES;
	if (st->st_mode & S_IROTH)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	snprintf(own, sizeof own, "/%d/", (int)getpid());
	ssize_t size = readlink(link, path, sizeof path - 1);
	if (size < 0)
		return -EACCES;
	path[size] = 0;
	return strstr(path, own) ? -EACCES : 0;
}

/* Where the system call is not known. A directory has no link(2): something may come between the look and the act. */
static int rename_by_link(const char *from, const char *to)
{
	struct stat st;

	if (lstat(from, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return link(from, to) == 0 && unlink(from) == 0 ? 0 : -errno;
	if (lstat(to, &st) == 0)
		return -EEXIST;
	return rename(from, to) == 0 ? 0 : -errno;
}

int rename_new(const char *from, const char *to)
{
	if (syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, NO_REPLACE) == 0)
		return 0;
	return errno == EINVAL || errno == ENOSYS ? rename_by_link(from, to) : -errno;
}
