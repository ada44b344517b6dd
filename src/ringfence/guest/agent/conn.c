/* The one connection to the host: bytes in and out, frames, the search for a marker. */
#include "agent.h"
#include "core.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	HEADER_BYTES = 9,
	READ_BYTES = 256 * 1024,
	KEPT_BYTES = 512 * 1024,        /* a larger buffer is given back when it is empty */
	CONGESTED_BYTES = 1024 * 1024,
	FLUSH_BYTES = 256 * 1024,
	LONGEST_BACK_OFF_MS = 1000,
};

struct buffer {
	u8 *data;
	size_t start, end, room;
};

struct conn {
	struct watch in, out;
	int out_fd;
	bool connected, in_session, seeking, may_seek, congested, dropping;
	struct buffer received, pending;
	size_t frame;  /* where the open frame begins, from pending.start */
	u8 marker[MARKER_BYTES];
	const char *directory;
	u64 back_off;
	struct timer dial;
};

static struct conn connection;
struct conn *const the_conn = &connection;

static void make_room(struct buffer *buffer, size_t size)
{
	if (buffer->room - buffer->end >= size)
		return;
	size_t used = buffer->end - buffer->start;
	if (buffer->start && buffer->room - used >= size && buffer->start >= used) {
		memcpy(buffer->data, buffer->data + buffer->start, used);
	} else {
		size_t room = (used + size) * 2;
		u8 *data = malloc(room);
		if (!data)
			abort();
		if (used)
			memcpy(data, buffer->data + buffer->start, used);
		free(buffer->data);
		buffer->data = data;
		buffer->room = room;
	}
	buffer->start = 0;
	buffer->end = used;
}

static void emptied(struct buffer *buffer)
{
	buffer->start = buffer->end = 0;
	if (buffer->room > KEPT_BYTES) {
		free(buffer->data);
		*buffer = (struct buffer){0};
	}
}

/* ---- frames out ---- */

void frame_begin(struct conn *conn, u8 op, u32 id)
{
	conn->frame = conn->pending.end - conn->pending.start;
	put_u32(conn, 0);
	put_u8(conn, op);
	put_u32(conn, id);
}

u8 *put_room(struct conn *conn, size_t size)
{
	make_room(&conn->pending, size);
	return conn->pending.data + conn->pending.end;
}

void put_used(struct conn *conn, size_t size) { conn->pending.end += size; }

void put_raw(struct conn *conn, const void *data, size_t size)
{
	u8 *room = put_room(conn, size);
	if (size)
		memcpy(room, data, size);
	put_used(conn, size);
}

static void put_number(struct conn *conn, u64 value, size_t size)
{
	u8 *room = put_room(conn, size);
	for (size_t i = 0; i < size; i++)
		room[i] = (u8)(value >> (8 * i));
	put_used(conn, size);
}

void put_u8(struct conn *conn, u8 value) { put_number(conn, value, 1); }
void put_u16(struct conn *conn, u16 value) { put_number(conn, value, 2); }
void put_u32(struct conn *conn, u32 value) { put_number(conn, value, 4); }
void put_u64(struct conn *conn, u64 value) { put_number(conn, value, 8); }

void put_str(struct conn *conn, const void *data, size_t size)
{
	put_u32(conn, (u32)size);
	put_raw(conn, data, size);
}

size_t frame_size(struct conn *conn)
{
	return conn->pending.end - conn->pending.start - conn->frame - HEADER_BYTES;
}

void frame_drop(struct conn *conn) { conn->pending.end = conn->pending.start + conn->frame; }

void frame_end(struct conn *conn)
{
	if (!conn->in_session || frame_size(conn) + 5 > GUEST_FRAME_CAP) {
		frame_drop(conn);
		return;
	}
	u32 length = (u32)frame_size(conn) + 5;
	u8 *head = conn->pending.data + conn->pending.start + conn->frame;
	for (int i = 0; i < 4; i++)
		head[i] = (u8)(length >> (8 * i));
	if (conn->pending.end - conn->pending.start >= FLUSH_BYTES && !conn->congested)
		conn_flush(conn);
}

void send_done(struct conn *conn, u32 id)
{
	frame_begin(conn, ANSWER_DONE, id);
	frame_end(conn);
}

void send_fail(struct conn *conn, u32 id, int error, u8 stage, const char *detail)
{
	frame_begin(conn, ANSWER_FAIL, id);
	put_u32(conn, (u32)error);
	put_u8(conn, stage);
	put_str(conn, detail, strlen(detail));
	frame_end(conn);
}

void send_stdin_ack(struct conn *conn, u32 id, u64 total)
{
	frame_begin(conn, ANSWER_STDIN_ACK, id);
	put_u64(conn, total);
	frame_end(conn);
}

bool conn_room(struct conn *conn)
{
	return conn->in_session && conn->pending.end - conn->pending.start < CONGESTED_BYTES;
}

bool conn_in_session(struct conn *conn) { return conn->in_session; }

/* ---- the stream ---- */

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
	if (pending->start == pending->end) {
		emptied(pending);
		conn->congested = false;
		watch_events(&conn->out, 0);
	}
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
	close(conn->in.fd);
	close(conn->out_fd);
	emptied(&conn->received);
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
	emptied(&conn->pending);
	conn->congested = false;
	watch_events(&conn->out, 0);
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

/* After each turn of the loop. */
void conn_turn(struct conn *conn)
{
	conn_flush(conn);
	if (conn->dropping)
		stream_ended(conn);
}

/* Where the marker stands in what was received, or where a part of it may stand. */
static bool seek(struct conn *conn)
{
	struct buffer *received = &conn->received;
	size_t size = received->end - received->start;
	u8 *found = memmem(received->data + received->start, size, conn->marker, MARKER_BYTES);
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
	}
}

static void in_ready(struct watch *watch, u32 events)
{
	struct conn *conn = the_conn;
	struct buffer *received = &conn->received;
	(void)events;
	make_room(received, READ_BYTES);
	ssize_t got = read(watch->fd, received->data + received->end, received->room - received->end);
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
		emptied(received);
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
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t size = strlen(conn->directory);
	memcpy(address.sun_path, conn->directory, size);
	memcpy(address.sun_path + size, "/host.sock", sizeof "/host.sock");
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

void conn_start(const struct options *options)
{
	struct conn *conn = the_conn;
	conn->may_seek = conn->seeking = options->has_marker;
	memcpy(conn->marker, options->marker, MARKER_BYTES);
	conn->directory = options->socket_directory;
	conn->back_off = 1;
	if (conn->directory)
		dial(&conn->dial);
	else
		take_stream(conn);
}
