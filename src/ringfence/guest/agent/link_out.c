/* What the host sends over a connection of the forward. */
#include "forward.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ACK_BYTES = LINK_WINDOW / 4 };

static void taken(struct link *link, size_t size)
{
	link->op.taken += size;
	if (link->op.taken - link->acknowledged >= ACK_BYTES || link->op.taken == link->op.received) {
		link->acknowledged = link->op.taken;
		send_stdin_ack(the_conn, link->op.id, link->op.taken);
	}
}

/* Pass on what is pending, then the host's end. */
bool link_put_out(struct link *link)
{
	while (link->start < link->end) {
		ssize_t sent = send(link->watch.fd, link->pending + link->start, link->end - link->start,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0) {
			link_broke(link, errno);
			return false;
		}
		link->start += (size_t)sent;
		taken(link, (size_t)sent);
	}
	free(link->pending);
	link->pending = NULL;
	link->start = link->end = link->room = 0;
	if (link->eof_out && !link->shut) {
		shutdown(link->watch.fd, SHUT_WR);
		link->shut = true;
	}
	return link_still(link);
}

static bool keep(struct link *link, struct bytes data)
{
	size_t used = link->end - link->start;

	if (link->end + data.size > link->room) {
		size_t room = used + data.size;
		u8 *pending = malloc(room);
		if (!pending)
			return false;
		if (used)
			memcpy(pending, link->pending + link->start, used);
		free(link->pending);
		link->pending = pending;
		link->start = 0;
		link->end = used;
		link->room = room;
	}
	memcpy(link->pending + link->end, data.data, data.size);
	link->end += data.size;
	return true;
}

static bool send_on(struct link *link, struct bytes data)
{
	if (data.size > LINK_WINDOW - (link->op.received - link->op.taken) || link->eof_out || link->connecting) {
		link_end(link, EPROTO);
		return false;
	}
	link->op.received += data.size;
	if (link->start == link->end) {
		ssize_t sent = send(link->watch.fd, data.data, data.size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			link_broke(link, errno);
			return false;
		}
		if (sent > 0) {
			data.data += sent;
			data.size -= (u32)sent;
			taken(link, (size_t)sent);
		}
	}
	if (data.size && !keep(link, data)) {
		link_end(link, ENOMEM);
		return false;
	}
	return true;
}

int op_link_frame(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes data = read_rest(r);
	struct link *link = link_find(id);

	(void)conn;
	if (!link)
		return 0;
	if (data.size == 0) {
		link->eof_out = true;
		if (!link_put_out(link))
			return 0;
	} else if (!send_on(link, data)) {
		return 0;
	}
	link_choose_events(link);
	return 0;
}
