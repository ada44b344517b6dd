/* The short path operations: one system call each, as the user that the host names. */
#include "files.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct cred cred;
static char path[PATH_MAX], other[PATH_MAX];

/* Run `act` as the user once all fields were read well; its -errno. */
static int act_as_user(struct reader *r, int error, int (*act)(u32 argument), u32 argument)
{
	if (!read_end(r) || error < 0)
		return error;
	error = files_enter(&cred);
	if (error < 0)
		return error;
	error = act(argument) < 0 ? -errno : 0;
	files_leave();
	return error;
}

static int done_or(struct conn *conn, u32 id, int error)
{
	if (error == 0)
		send_done(conn, id);
	return error;
}

static struct stat found;

static int do_stat(u32 follow)
{
	return follow ? stat(path, &found) : lstat(path, &found);
}

int op_stat(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	u8 follow = read_u8(r);
	int error = act_as_user(r, read_path(r, path), do_stat, follow);

	if (r->bad || error < 0)
		return error;
	frame_begin(conn, ANSWER_DONE, id);
	put_stat(conn, &found);
	frame_end(conn);
	return 0;
}

static int do_mkdir(u32 mode)
{
	return mkdir(path, mode);
}

static int do_mkdir_parents(u32 mode)
{
	int error = make_directories(path, mode);

	errno = -error;
	return error;
}

int op_mkdir(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	u32 mode = read_u32(r) & 07777;
	u8 parents = read_u8(r);
	int error = act_as_user(r, read_path(r, path), parents ? do_mkdir_parents : do_mkdir, mode);

	return r->bad ? error : done_or(conn, id, error);
}

static int do_rename(u32 replace)
{
	if (replace)
		return rename(path, other);
	int error = rename_new(path, other);
	errno = -error;
	return error;
}

int op_rename(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	u8 replace = read_u8(r);
	int first = read_path(r, path), second = read_path(r, other);
	int error = act_as_user(r, first < 0 ? first : second, do_rename, replace);

	return r->bad ? error : done_or(conn, id, error);
}

static int do_chmod(u32 mode)
{
	return chmod(path, mode);
}

int op_chmod(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	u32 mode = read_u32(r) & 07777;
	int error = act_as_user(r, read_path(r, path), do_chmod, mode);

	return r->bad ? error : done_or(conn, id, error);
}

static int do_symlink(u32 unused)
{
	(void)unused;
	return symlink(other, path);
}

int op_symlink(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	bool fits = copy_str(read_str(r), other, sizeof other);
	int error = read_path(r, path);

	error = act_as_user(r, fits ? error : -ENAMETOOLONG, do_symlink, 0);
	return r->bad ? error : done_or(conn, id, error);
}

static ssize_t target_size;

static int do_readlink(u32 unused)
{
	(void)unused;
	target_size = readlink(path, other, sizeof other);
	return target_size < 0 ? -1 : 0;
}

int op_readlink(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	int error = act_as_user(r, read_path(r, path), do_readlink, 0);

	if (r->bad || error < 0)
		return error;
	frame_begin(conn, ANSWER_DONE, id);
	put_str(conn, other, (size_t)target_size);
	frame_end(conn);
	return 0;
}

static int do_remove(u32 unused)
{
	(void)unused;
	if (unlink(path) == 0)
		return 0;
	return errno == EISDIR ? rmdir(path) : -1;
}

/* A full directory that goes recursively is tree.c's. */
int op_remove_path(struct conn *conn, u32 id, struct reader *r)
{
	read_cred(r, &cred);
	u8 recursive = read_u8(r);
	int error = act_as_user(r, read_path(r, path), do_remove, 0);

	if (r->bad)
		return error;
	if (recursive && (error == -ENOTEMPTY || error == -EEXIST))
		return remove_tree_start(id, &cred, path);
	if (error < 0)
		return error;
	frame_begin(conn, ANSWER_DONE, id);
	put_u64(conn, 1);
	frame_end(conn);
	return 0;
}
