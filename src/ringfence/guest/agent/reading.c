/* READ: a regular file in DATA frames, under the window. */
#include "files.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024 };

struct reading {
	struct op op;
	int fd;
	u64 at, left, total;
};

static void end(struct reading *reading)
{
	op_remove(&reading->op);
	close(reading->fd);
	free(reading);
}

static void fail(struct reading *reading, int error)
{
	send_fail(the_conn, reading->op.id, error, 0, "");
	end(reading);
}

static void finish(struct reading *reading)
{
	struct stat st;

	if (fstat(reading->fd, &st) < 0) {
		fail(reading, errno);
		return;
	}
	frame_begin(the_conn, ANSWER_DONE, reading->op.id);
	put_u64(the_conn, reading->total);
	put_stat(the_conn, &st);
	frame_end(the_conn);
	end(reading);
}

/* One frame of at most `most` bytes: what read(2) said. */
static ssize_t send_part(struct reading *reading, size_t most)
{
	frame_begin(the_conn, ANSWER_DATA, reading->op.id);
	put_u64(the_conn, reading->at);
	u8 *room = put_room(the_conn, most);
	ssize_t got = pread(reading->fd, room, most, (off_t)reading->at);
	if (got <= 0) {
		frame_drop(the_conn);
		return got;
	}
	put_used(the_conn, (size_t)got);
	frame_end(the_conn);
	reading->at += (u64)got;
	reading->left -= (u64)got;
	reading->total += (u64)got;
	reading->op.sent += (u64)got;
	return got;
}

static void resume(struct op *op)
{
	struct reading *reading = container_of(op, struct reading, op);

	while (reading->left) {
		u64 most = op_room(op);
		if (!most || !conn_room(the_conn)) {
			op->stalled = true;
			return;
		}
		most = most < READ_BYTES ? most : READ_BYTES;
		ssize_t got = send_part(reading, reading->left < most ? reading->left : most);
		if (got < 0 && errno != EINTR) {
			fail(reading, errno);
			return;
		}
		if (got == 0)
			break;
	}
	finish(reading);
}

static int frame(struct op *op, u8 code, struct reader *r)
{
	if (code == OP_CANCEL && read_end(r))
		fail(container_of(op, struct reading, op), ECANCELED);
	return 0;
}

static void lost(struct op *op)
{
	end(container_of(op, struct reading, op));
}

static const struct op_class reading_class = {.frame = frame, .resume = resume, .lost = lost};

static int open_as(const struct cred *cred, const char *path, struct stat *st)
{
	int error = files_enter(cred);

	if (error < 0)
		return error;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	error = fd < 0 ? -errno : check_regular(fd, false, st);
	files_leave();
	if (fd >= 0 && error < 0)
		close(fd);
	/* What open(2) says of a socket or of a device that is not there. */
	if (error == -ENXIO || error == -ENODEV)
		error = -EINVAL;
	return error < 0 ? error : fd;
}

/* How much will come, as far as it is known now, where it is more than a frame. */
static void announce(const struct reading *reading, const struct stat *st)
{
	u64 size = (u64)st->st_size > reading->at ? (u64)st->st_size - reading->at : 0;

	size = size < reading->left ? size : reading->left;
	if (size <= READ_BYTES)
		return;
	frame_begin(the_conn, ANSWER_SIZE, reading->op.id);
	put_u64(the_conn, size);
	frame_end(the_conn);
}

int op_read(struct conn *conn, u32 id, struct reader *r)
{
	static struct cred cred;
	static char path[PATH_MAX];
	struct stat st;

	(void)conn;
	read_cred(r, &cred);
	int error = read_path(r, path);
	u64 at = read_u64(r), length = read_u64(r);
	if (!read_end(r) || error < 0)
		return error;
	if (at > INT64_MAX)
		return -EINVAL;
	int fd = open_as(&cred, path, &st);
	if (fd < 0)
		return fd;
	struct reading *reading = malloc(sizeof *reading);
	error = reading ? op_add(&reading->op, id, &reading_class) : -ENOMEM;
	if (error < 0) {
		free(reading);
		close(fd);
		return error;
	}
	reading->fd = fd;
	reading->at = at;
	reading->left = length;
	reading->total = 0;
	announce(reading, &st);
	resume(&reading->op);
	return 0;
}
