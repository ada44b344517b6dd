/* WRITE: a regular file from one frame or from FILE_DATA frames, in place or atomically. */
#include "files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statfs.h>
#include <unistd.h>

enum { CREATE = 1, TRUNCATE = 2, APPEND = 4, EXCLUSIVE = 8, PARENTS = 16, ATOMIC = 32, WHOLE = 64 };
enum { PARENT_MODE = 0755, ATTEMPTS = 8, TMPFS = 0x01021994 };

struct writing {
	struct op op;
	struct cred cred;
	int fd;
	u32 flags, mode;
	u64 at, total;
	char path[PATH_MAX];
	bool shortens;          /* what is left of the old file behind the new data is cut off at the end */
	char beside[PATH_MAX];  /* the new file of an atomic write until it is renamed; "" else */
};

static int shorten(const struct writing *writing)
{
	return writing->shortens && ftruncate(writing->fd, (off_t)writing->at) < 0 ? -errno : 0;
}

static void free_writing(struct writing *writing)
{
	if (writing->fd >= 0) {
		shorten(writing);
		close(writing->fd);
	}
	if (writing->beside[0] && files_enter(&writing->cred) == 0) {
		unlink(writing->beside);
		files_leave();
	}
	free(writing);
}

/* A new file in the directory of `path`, with a name of its own. */
static int open_beside(struct writing *writing)
{
	const char *slash = strrchr(writing->path, '/');
	int above = (int)(slash + 1 - writing->path);

	for (int i = 0; i < ATTEMPTS; i++) {
		u64 chance;
		if (getrandom(&chance, sizeof chance, 0) != sizeof chance)
			return -EIO;
		int size = snprintf(writing->beside, PATH_MAX, "%.*s.ringfence-%016llx", above, writing->path,
			(unsigned long long)chance);
		if (size < PATH_MAX)
			writing->fd = open(writing->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, writing->mode);
		else
			errno = ENAMETOOLONG;
		if (size < PATH_MAX && writing->fd >= 0)
			return 0;
		writing->beside[0] = 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int open_atomic(struct writing *writing)
{
	struct stat st;
	const char *name = strrchr(writing->path, '/') + 1;

	writing->flags &= ~(u32)APPEND;
	writing->at = 0;
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EISDIR;
	if (strlen(name) > NAME_MAX)
		return -ENAMETOOLONG;
	if (lstat(writing->path, &st) == 0) {
		if (writing->flags & EXCLUSIVE)
			return -EEXIST;
		if (S_ISDIR(st.st_mode))
			return -EISDIR;
		if (S_ISREG(st.st_mode))
			writing->mode = st.st_mode & 01777;  /* what was nobody else's to read stays so */
	} else if (errno != ENOENT || !(writing->flags & CREATE)) {
		return -errno;
	}
	return open_beside(writing);
}

/* A long file in memory is written over: to free what it has and to take it anew costs more than the data. Elsewhere
 * old and new data may need room beside each other. */
static bool shortens(const struct writing *writing, const struct stat *st)
{
	struct statfs fs;

	return !(writing->flags & (WHOLE | APPEND)) && writing->at == 0 && st->st_size > 0
		&& fstatfs(writing->fd, &fs) == 0 && (u32)fs.f_type == TMPFS;
}

static int open_in_place(struct writing *writing)
{
	struct stat st;
	int how = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;

	how |= writing->flags & CREATE ? O_CREAT : 0;
	how |= writing->flags & EXCLUSIVE ? O_CREAT | O_EXCL : 0;
	how |= writing->flags & APPEND ? O_APPEND : 0;
	writing->fd = open(writing->path, how, writing->mode);
	if (writing->fd < 0)
		return errno == ENXIO || errno == ENODEV ? -EINVAL : -errno;
	int error = check_regular(writing->fd, true, &st);
	if (error < 0 || !(writing->flags & TRUNCATE))
		return error;
	writing->shortens = shortens(writing, &st);
	return writing->shortens || ftruncate(writing->fd, 0) == 0 ? 0 : -errno;
}

static int open_target(struct writing *writing)
{
	int error = files_enter(&writing->cred);

	if (error < 0)
		return error;
	if (writing->flags & PARENTS)
		error = make_parents(writing->path, PARENT_MODE);
	if (error == 0)
		error = writing->flags & ATOMIC ? open_atomic(writing) : open_in_place(writing);
	files_leave();
	return error;
}

static int put(struct writing *writing, struct bytes data)
{
	while (data.size) {
		ssize_t size = writing->flags & APPEND ? write(writing->fd, data.data, data.size)
			: pwrite(writing->fd, data.data, data.size, (off_t)writing->at);
		if (size < 0 && errno == EINTR)
			continue;
		if (size <= 0)
			return size < 0 ? -errno : -EIO;
		writing->at += (u64)size;
		writing->total += (u64)size;
		data.data += size;
		data.size -= (u32)size;
	}
	return 0;
}

static int put_in_place(struct writing *writing)
{
	if (writing->flags & EXCLUSIVE)
		return rename_new(writing->beside, writing->path);
	return rename(writing->beside, writing->path) == 0 ? 0 : -errno;
}

/* The end of a write that went well so far; answers when it goes well. */
static int finish(struct writing *writing, u32 id)
{
	int fd = writing->fd;
	int error = shorten(writing);

	if (error < 0)
		return error;
	writing->fd = -1;
	if (close(fd) < 0 && errno != EINTR)
		return -errno;
	if (writing->flags & ATOMIC) {
		error = files_enter(&writing->cred);
		if (error == 0) {
			error = put_in_place(writing);
			files_leave();
		}
		if (error < 0)
			return error;
		writing->beside[0] = 0;
	}
	frame_begin(the_conn, ANSWER_DONE, id);
	put_u64(the_conn, writing->total);
	frame_end(the_conn);
	return 0;
}

static void end(struct writing *writing)
{
	op_remove(&writing->op);
	free_writing(writing);
}

static int data_came(struct writing *writing, struct reader *r)
{
	struct bytes data = read_rest(r);

	if (data.size > FILE_DATA_CAP)  /* all before it was consumed */
		return -EPROTO;
	writing->op.received += data.size;
	u64 size = data.size;
	int error = put(writing, data);
	if (error == 0)
		op_input_done(&writing->op, size);
	return error;
}

static int frame(struct op *op, u8 code, struct reader *r)
{
	struct writing *writing = container_of(op, struct writing, op);
	u32 id = op->id;
	int error = 0;

	if (code == OP_FILE_DATA) {
		error = data_came(writing, r);
		if (error == 0)
			return 0;
	} else if (code == OP_FILE_END) {
		u8 abandon = read_u8(r);
		error = !read_end(r) ? -EPROTO : abandon ? 0 : finish(writing, id);
	} else if (code == OP_CANCEL) {
		error = -ECANCELED;
	} else {
		return 0;
	}
	end(writing);
	if (error < 0 && !r->bad)
		send_fail(the_conn, id, -error, 0, "");
	return 0;
}

static void lost(struct op *op)
{
	free_writing(container_of(op, struct writing, op));
}

static const struct op_class writing_class = {.frame = frame, .lost = lost};

static int begin(struct writing *writing, u32 id, struct bytes data)
{
	int error = open_target(writing);

	if (error == 0)
		error = put(writing, data);
	if (error == 0 && writing->flags & WHOLE) {
		error = finish(writing, id);
		if (error == 0)
			free_writing(writing);
		return error;
	}
	return error < 0 ? error : op_add(&writing->op, id, &writing_class);
}

int op_write(struct conn *conn, u32 id, struct reader *r)
{
	struct writing *writing = malloc(sizeof *writing);

	(void)conn;
	if (!writing)
		return -ENOMEM;
	writing->fd = -1;
	writing->beside[0] = 0;
	writing->shortens = false;
	writing->total = 0;
	read_cred(r, &writing->cred);
	int error = read_path(r, writing->path);
	writing->flags = read_u32(r);
	writing->mode = read_u32(r) & 07777;
	writing->at = read_u64(r);
	struct bytes data = read_rest(r);
	if (!r->bad && error == 0)
		error = writing->at > INT64_MAX ? -EINVAL : begin(writing, id, data);
	if (r->bad || error < 0)
		free_writing(writing);
	return error;
}
