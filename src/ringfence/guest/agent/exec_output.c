/* The output of an exec: its window, its cap, and what is held of it. */
#include "exec.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { PTY_REST = 64 * 1024, WIDE_BYTES = 256 * 1024 };

static u8 number_of(const struct stream *stream) { return stream == &stream->exec->streams[OUT] ? 1 : 2; }
static u64 kept(const struct stream *stream) { return stream->total < stream->cap ? stream->total : stream->cap; }

static u64 window_room(const struct stream *stream)
{
	u64 acked = number_of(stream) == 1 ? stream->exec->op.acked : stream->acked;
	u64 beyond = stream->sent - acked;
	return beyond < OUTPUT_WINDOW ? OUTPUT_WINDOW - beyond : 0;
}

static void stall(struct stream *stream)
{
	stream->stalled = true;
	stream->exec->op.stalled = true;
	watch_remove(&stream->watch);
}

/* The window of stdout is the operation's. */
static void advance(struct stream *stream, u64 size)
{
	stream->sent += size;
	if (number_of(stream) == 1)
		stream->exec->op.sent = stream->sent;
}

static void output_begin(struct stream *stream)
{
	frame_begin(the_conn, number_of(stream) == 1 ? ANSWER_OUT : ANSWER_ERR, stream->exec->id);
	put_u64(the_conn, stream->sent);
}

/* Everything a held exec has that its session may get. */
static void send_ring(struct stream *stream)
{
	struct exec *exec = stream->exec;
	while (exec->attached && stream->sent < kept(stream)) {
		u64 size = kept(stream) - stream->sent, room = window_room(stream), at = stream->sent % HELD_BYTES;
		if (!room || !conn_room(the_conn)) {
			stall(stream);
			return;
		}
		size = size < room ? size : room;
		size = size < CHUNK_BYTES ? size : CHUNK_BYTES;
		size = size < HELD_BYTES - at ? size : HELD_BYTES - at;
		output_begin(stream);
		put_raw(the_conn, stream->ring + at, size);
		frame_end(the_conn);
		advance(stream, size);
	}
}

/* Whether nobody gets what is read now. */
static bool drops(const struct stream *stream)
{
	return stream->total >= stream->cap || (stream->exec->dropping && !stream->ring);
}

/* How much may be read now into the window or the ring; what is dropped has no limit. */
static size_t readable(struct stream *stream)
{
	struct exec *exec = stream->exec;
	u64 size = CHUNK_BYTES, room = CHUNK_BYTES;
	if (exec->late && stream->quota < size)
		size = stream->quota;
	if (drops(stream))
		return size;
	if (size > stream->cap - stream->total)
		size = stream->cap - stream->total;
	if (!stream->ring)
		room = conn_room(the_conn) ? window_room(stream) : 0;
	else if (exec->attached && !exec->dropping)
		room = HELD_BYTES - (stream->total - stream->sent);
	return size < room ? size : room;
}

static ssize_t read_held(struct stream *stream, size_t size)
{
	u64 at = stream->total % HELD_BYTES;
	if (size > HELD_BYTES - at)
		size = HELD_BYTES - at;
	ssize_t got = read(stream->watch.fd, stream->ring + at, size);
	if (got > 0) {
		stream->total += (u64)got;
		if (stream->total - stream->sent > HELD_BYTES)
			stream->sent = stream->total - HELD_BYTES;
	}
	return got;
}

static ssize_t read_dropped(struct stream *stream, size_t size)
{
	static u8 nowhere[CHUNK_BYTES];
	ssize_t got = read(stream->watch.fd, nowhere, size);
	if (got > 0)
		stream->total += (u64)got;
	return got;
}

static ssize_t read_sent(struct stream *stream, size_t size)
{
	output_begin(stream);
	ssize_t got = read(stream->watch.fd, put_room(the_conn, size), size);
	if (got <= 0) {
		int error = errno;
		frame_drop(the_conn);
		errno = error;
		return got;
	}
	put_used(the_conn, (size_t)got);
	frame_end(the_conn);
	stream->total += (u64)got;
	advance(stream, (u64)got);
	return got;
}

/* A command that fills its pipe gets a wider one: fewer turns between the two. Where too many are wide it stays. */
static void widen(struct stream *stream)
{
	if (!stream->widened)
		fcntl(stream->watch.fd, F_SETPIPE_SZ, WIDE_BYTES);
	stream->widened = true;
}

static ssize_t read_some(struct stream *stream, size_t size)
{
	if (drops(stream))
		return read_dropped(stream, size);
	return stream->ring ? read_held(stream, size) : read_sent(stream, size);
}

static bool cap_kills(struct stream *stream)
{
	struct exec *exec = stream->exec;
	return stream->total > stream->cap && exec->flags & FLAG_KILL_ON_CAP && !exec->main_ended;
}

void stream_end(struct stream *stream)
{
	if (!stream->open)
		return;
	stream->open = false;
	watch_remove(&stream->watch);
	close(stream->watch.fd);
}

static void read_up_to(struct stream *stream, int turns)
{
	struct exec *exec = stream->exec;
	while (stream->open && turns--) {
		size_t size = readable(stream);
		if (!size && exec->late && !stream->quota) {
			stream_end(stream);
			return;
		}
		if (!size) {
			stall(stream);
			return;
		}
		ssize_t got = read_some(stream, size);
		if (got == CHUNK_BYTES)
			widen(stream);
		if (got > 0) {
			if (exec->late)
				stream->quota -= (u64)got;
			if (cap_kills(stream))
				exec_kill(exec, REASON_CAP);
			if (stream->ring)
				send_ring(stream);
		} else if (got < 0 && errno == EAGAIN) {
			stream->drained = true;
			if (exec->late)
				stream_end(stream);
			return;
		} else if (got == 0 || errno != EINTR) {
			stream_end(stream);
		}
	}
}

/* While the command runs a few chunks per turn are enough; at its end all there is. */
void stream_read(struct stream *stream)
{
	if (stream->open && stream->exec->started)
		read_up_to(stream, stream->exec->main_ended ? 1024 : 4);
}

static void stream_ready(struct watch *watch, u32 events)
{
	struct stream *stream = container_of(watch, struct stream, watch);
	struct exec *exec = stream->exec;
	(void)events;
	bool hurry = conn_hurries(the_conn);
	stream_read(stream);
	if (!stream->open && !(exec->flags & FLAG_TELL_START))
		conn_set_hurry(the_conn, hurry); /* its end follows soon, where the command's does */
	exec_settle(exec);
}

void stream_begin(struct stream *stream, struct exec *exec, int fd)
{
	stream->exec = exec;
	stream->watch.fd = fd;
	stream->open = fd >= 0;
}

void streams_watch(struct exec *exec)
{
	for (int i = 0; i < 2; i++)
		if (exec->streams[i].open && !exec->streams[i].stalled && !exec->streams[i].watch.added)
			watch_add(&exec->streams[i].watch, exec->streams[i].watch.fd, EPOLLIN, stream_ready);
}

/* There may be room again: take up what waits. */
void streams_resume(struct exec *exec)
{
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &exec->streams[i];
		if (!stream->stalled)
			continue;
		stream->stalled = false;
		if (stream->ring)
			send_ring(stream);
		stream_read(stream);
	}
	if (exec->started)
		streams_watch(exec);
}

/* The wait for children is over: what is there now is read, what may still come is not. */
void stream_set_quota(struct stream *stream)
{
	int rest = 0;
	if (!stream->open)
		return;
	if (ioctl(stream->watch.fd, FIONREAD, &rest) || rest < PTY_REST)
		rest = PTY_REST;
	stream->quota = (u64)rest;
}

bool stream_delivered(const struct stream *stream)
{
	const struct exec *exec = stream->exec;
	return !stream->open && (!exec->attached || exec->dropping || stream->sent >= kept(stream));
}

void stream_attach(struct stream *stream, u64 offset)
{
	u64 oldest = kept(stream) > HELD_BYTES ? kept(stream) - HELD_BYTES : 0;
	stream->sent = offset < oldest ? oldest : offset > kept(stream) ? kept(stream) : offset;
	stream->acked = stream->sent;
	if (number_of(stream) == 1)
		stream->exec->op.sent = stream->exec->op.acked = stream->sent;
	if (stream->ring)
		send_ring(stream);
}
