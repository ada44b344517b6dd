/* Frames to the host, built in the buffer of what is to be sent. */
#include "conn.h"

#include <stdlib.h>
#include <string.h>

enum {
	KEPT_BYTES = 1024 * 1024,  /* a larger buffer is given back when it is empty */
	FLUSH_BYTES = 256 * 1024,
};

void buffer_room(struct buffer *buffer, size_t size)
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

void buffer_empty(struct buffer *buffer)
{
	buffer->start = buffer->end = 0;
	if (buffer->room > KEPT_BYTES) {
		free(buffer->data);
		*buffer = (struct buffer){0};
	}
}

void frame_begin(struct conn *conn, u8 op, u32 id)
{
	conn->frame = conn->pending.end - conn->pending.start;
	put_u32(conn, 0);
	put_u8(conn, op);
	put_u32(conn, id);
}

u8 *put_room(struct conn *conn, size_t size)
{
	buffer_room(&conn->pending, size);
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
	conn->hurry = true;
	if (conn->pending.end - conn->pending.start >= FLUSH_BYTES && !conn->congested)
		conn_flush(conn);
}

bool conn_hurries(struct conn *conn) { return conn->hurry; }
void conn_set_hurry(struct conn *conn, bool hurry) { conn->hurry = hurry; }

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
	return conn->in_session && !conn->congested;
}

bool conn_in_session(struct conn *conn) { return conn->in_session; }
