/* The one connection to the host: its stream, the frames that come, the search for a marker. */
#include "conn.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, LONGEST_BACK_OFF_MS = 1000, SOCKET_BYTES = 1024 * 1024, PATIENCE_MS = 20 };
enum { HELLO_NEXT_AT = HEADER_BYTES + 4 + MARKER_BYTES };  /* where a HELLO names the next marker */

static struct conn connection;
struct conn *const the_conn = &connection;

static void sent_all(struct conn *conn)
{
	buffer_empty(&conn->pending);
	conn->congested = conn->hurry = false;
	timer_clear(&conn->patience);
	watch_events(&conn->out, 0);
}

void conn_flush(struct conn *conn)
{
	struct buffer *pending = &conn->pending;
	bool was_full = conn->congested;
	while (conn->connected && pending->end > pending->start) {
		ssize_t sent = write(conn->out_fd, pending->data + pending->start, pending->end - pending->start);
		if (sent >= 0) {
			pending->start += (size_t)sent;
		} else if (errno == EAGAIN) {
			conn->congested = true;
			watch_events(&conn->out, EPOLLOUT);
			break;
		} else if (errno != EINTR) {
			conn->dropping = true;
			break;
		}
	}
	if (pending->start == pending->end)
		sent_all(conn);
	if (was_full && conn_room(conn)) {
		ops_resume();
		if (!conn->congested)
			conn_flush(conn);
	}
}

static void out_ready(struct watch *watch, u32 events)
{
	(void)watch;
	if (events & (EPOLLERR | EPOLLHUP))
		the_conn->dropping = true;
	else
		conn_flush(the_conn);
}

void conn_greeted(struct conn *conn, const u8 *next_marker)
{
	static const u8 none[MARKER_BYTES];
	conn->in_session = true;
	if (memcmp(next_marker, none, MARKER_BYTES) != 0)
		memcpy(conn->marker, next_marker, MARKER_BYTES);
}

static void dial(struct timer *timer);

static void disconnect(struct conn *conn)
{
	if (!conn->connected)
		return;
	conn->connected = conn->dropping = false;
	watch_remove(&conn->in);
	watch_remove(&conn->out);
	if (conn->directory)
		shutdown(conn->in.fd, SHUT_RDWR); /* whoever else has it open */
	close(conn->in.fd);
	close(conn->out_fd);
	buffer_empty(&conn->received);
	descriptors_drop();
	conn->back_off = 1;
	if (conn->directory)
		timer_set(&conn->dial, 1, dial);
}

/* What was not sent is dropped. A stream on which a marker may come stays open. */
void conn_end_session(struct conn *conn)
{
	bool was = conn->in_session;
	conn->in_session = false;
	conn->seeking = conn->may_seek;
	sent_all(conn);
	if (!conn->may_seek)
		disconnect(conn);
	if (was)
		ops_lost();
}

static void stream_ended(struct conn *conn)
{
	disconnect(conn);
	life_stream_lost(!conn->directory);
}

/* A HELLO that cannot be answered: the stream is given up, unless a marker may come or a session goes on. */
void conn_refuse(struct conn *conn)
{
	if (conn->in_session)
		return;
	if (conn->may_seek)
		conn->seeking = true;
	else
		conn->dropping = true;
}

static void patience_over(struct timer *timer) { container_of(timer, struct conn, patience)->hurry = true; }

/* After each turn of the loop. */
void conn_turn(struct conn *conn)
{
	bool pending = conn->pending.end > conn->pending.start;
	if (!pending || conn->hurry || conn->congested)
		conn_flush(conn);
	else if (!conn->patience.set)
		timer_set(&conn->patience, PATIENCE_MS, patience_over);
	if (conn->dropping)
		stream_ended(conn);
}

/* The next marker that a HELLO names may be the one that announced it: there it announces nothing. */
static u8 *find_marker(struct conn *conn, u8 *at, size_t size)
{
	u8 *found = memmem(at, size, conn->marker, MARKER_BYTES);
	bool awaits_hello = !conn->seeking && !conn->in_session;
	if (!found || !awaits_hello || found - at != HELLO_NEXT_AT)
		return found;
	return memmem(found + 1, size - (size_t)(found + 1 - at), conn->marker, MARKER_BYTES);
}

/* Where the marker stands in what was received, or where a part of it may stand. */
static bool seek(struct conn *conn)
{
	struct buffer *received = &conn->received;
	size_t size = received->end - received->start;
	u8 *found = find_marker(conn, received->data + received->start, size);
	if (found) {
		received->start = (size_t)(found - received->data) + MARKER_BYTES;
		if (conn->in_session)
			conn_end_session(conn);
		conn->seeking = false;
		return true;
	}
	if (conn->seeking && size >= MARKER_BYTES)
		received->start = received->end - (MARKER_BYTES - 1);
	return false;
}

static u32 length_at(const u8 *at)
{
	return (u32)at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
}

static void take_frames(struct conn *conn)
{
	struct buffer *received = &conn->received;
	while (conn->connected && !conn->dropping && !conn->seeking && received->end - received->start >= HEADER_BYTES) {
		const u8 *head = received->data + received->start;
		u32 length = length_at(head);
		u8 op = head[4];
		if (length < 5 || length > HOST_FRAME_CAP || (!conn->in_session && op != OP_HELLO)) {
			life_stream_lost(false);
			return;
		}
		if (received->end - received->start < 4 + (size_t)length)
			return;
		struct reader r = {head + HEADER_BYTES, head + 4 + length, false};
		received->start += 4 + (size_t)length;
		life_heard();
		dispatch(conn, op, length_at(head + 5), &r);
		if (conn->may_seek && op == OP_HELLO)
			seek(conn); /* for the marker that it named: another host may have come */
	}
}

/* What a long frame that has come in part lacks: it is read to its end and no further, so that nothing is left to be
 * moved. Not where a marker may stand across that end. */
static size_t frame_missing(const struct conn *conn)
{
	const struct buffer *received = &conn->received;
	size_t have = received->end - received->start;
	if (have < HEADER_BYTES || conn->may_seek)
		return 0;
	size_t whole = 4 + (size_t)length_at(received->data + received->start);
	return whole > READ_BYTES / 2 && whole > have ? whole - have : 0;
}

static void in_ready(struct watch *watch, u32 events)
{
	struct conn *conn = the_conn;
	struct buffer *received = &conn->received;
	(void)events;
	size_t missing = frame_missing(conn);
	buffer_room(received, missing ? missing : READ_BYTES);
	u8 *into = received->data + received->end;
	size_t most = missing ? missing : READ_BYTES;
	ssize_t got = conn->directory ? descriptors_receive(watch->fd, into, most) : read(watch->fd, into, most);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		stream_ended(conn);
		return;
	}
	received->end += (size_t)got;
	if (conn->may_seek)
		seek(conn);
	take_frames(conn);
	if (received->start == received->end)
		buffer_empty(received);
}

static void room_to_send(int fd)
{
	int bytes = SOCKET_BYTES;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void connected(struct conn *conn, int in_fd, int out_fd)
{
	fcntl(in_fd, F_SETFL, fcntl(in_fd, F_GETFL) | O_NONBLOCK);
	fcntl(out_fd, F_SETFL, fcntl(out_fd, F_GETFL) | O_NONBLOCK);
	conn->connected = true;
	conn->out_fd = out_fd;
	watch_add(&conn->out, out_fd, 0, out_ready);
	if (watch_add(&conn->in, in_fd, EPOLLIN, in_ready))
		stream_ended(conn);
}

static void dial(struct timer *timer)
{
	struct conn *conn = container_of(timer, struct conn, dial);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); /* a full queue is no reason to wait */
	size_t size = strlen(conn->directory);
	memcpy(address.sun_path, conn->directory, size);
	memcpy(address.sun_path + size, "/host.sock", sizeof "/host.sock");
	if (fd >= 0)
		room_to_send(fd);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
		connected(conn, fd, fcntl(fd, F_DUPFD_CLOEXEC, 3));
		return;
	}
	if (fd >= 0)
		close(fd);
	conn->back_off = conn->back_off * 2 > LONGEST_BACK_OFF_MS ? LONGEST_BACK_OFF_MS : conn->back_off * 2;
	timer_set(timer, conn->back_off, dial);
}

/* Descriptors 0 and 1 become /dev/null, so that nothing else can touch the stream. */
static void take_stream(struct conn *conn)
{
	int in_fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
	int out_fd = fcntl(1, F_DUPFD_CLOEXEC, 3);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		close(null);
	}
	connected(conn, in_fd, out_fd);
}

/* What a host that made the guest speaks on first: it may have said something already. */
static void take_connected(struct conn *conn, int fd)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	room_to_send(fd);
	connected(conn, fd, fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

void conn_start(const struct options *options)
{
	struct conn *conn = the_conn;
	conn->may_seek = conn->seeking = options->has_marker;
	memcpy(conn->marker, options->marker, MARKER_BYTES);
	conn->directory = options->socket_directory;
	conn->back_off = 1;
	if (conn->directory && options->connected)
		take_connected(conn, (int)options->connected);
	else if (conn->directory)
		dial(&conn->dial);
	else
		take_stream(conn);
}
