/* One TCP connection of the forward: bytes both ways, each direction with a window and an end of its own. */
#include "forward.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 192 * 1024, ACK_BYTES = LINK_WINDOW / 4 };

struct link {
	struct op op;
	struct watch watch;
	bool connecting;
	bool eof_in, eof_out;  /* the process inside ended its side; the host did */
	bool shut;             /* the host's end was passed on */
	u64 acknowledged;
	u8 *pending;           /* what the host sent and the socket did not take yet */
	size_t start, end, room;
};

static u32 links;
static u32 last_id = GUEST_IDS - 1;

bool link_room(void) { return links < LINKS_MOST; }

static void free_link(struct link *link)
{
	watch_remove(&link->watch);
	close(link->watch.fd);
	free(link->pending);
	free(link);
	if (links-- == LINKS_MOST)
		forward_room();
}

static void end(struct link *link, int error)
{
	struct linger at_once = {1, 0};

	op_remove(&link->op);
	if (error)
		setsockopt(link->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	frame_begin(the_conn, ANSWER_CLOSED, link->op.id);
	put_u32(the_conn, (u32)error);
	frame_end(the_conn);
	free_link(link);
}

/* Both: false when the link is over and freed. */
static bool end_when_both_ended(struct link *link)
{
	if (!link->eof_in || !link->shut)
		return true;
	end(link, 0);
	return false;
}

static void choose_events(struct link *link);

/* One frame from the socket: the bytes, 0 at the end, -errno. */
static ssize_t receive(struct link *link, size_t most)
{
	frame_begin(the_conn, ANSWER_RECEIVED, link->op.id);
	ssize_t got = recv(link->watch.fd, put_room(the_conn, most), most, MSG_DONTWAIT);
	if (got < 0) {
		int error = errno;
		frame_drop(the_conn);
		return -error;
	}
	put_used(the_conn, (size_t)got);
	frame_end(the_conn);
	link->op.sent += (u64)got;
	return got;
}

static bool take_in(struct link *link)
{
	u64 most = op_room(&link->op);

	if (link->eof_in || link->connecting)
		return true;
	if (!most || !conn_room(the_conn)) {
		link->op.stalled = true;
		return true;
	}
	ssize_t got = receive(link, most < READ_BYTES ? most : READ_BYTES);
	if (got == -EAGAIN || got == -EINTR)
		return true;
	if (got < 0) {
		end(link, (int)-got);
		return false;
	}
	link->eof_in = got == 0;
	return end_when_both_ended(link);
}

static void taken(struct link *link, size_t size)
{
	link->op.taken += size;
	if (link->op.taken - link->acknowledged >= ACK_BYTES || link->op.taken == link->op.received) {
		link->acknowledged = link->op.taken;
		send_stdin_ack(the_conn, link->op.id, link->op.taken);
	}
}

/* Pass on what is pending, then the host's end. */
static bool put_out(struct link *link)
{
	while (link->start < link->end) {
		ssize_t sent = send(link->watch.fd, link->pending + link->start, link->end - link->start,
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0) {
			end(link, errno);
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
	return end_when_both_ended(link);
}

static bool connected(struct link *link)
{
	int error = 0;
	socklen_t size = sizeof error;
	u32 id = link->op.id;

	getsockopt(link->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		op_remove(&link->op);
		free_link(link);
		send_fail(the_conn, id, error, 0, "");
		return false;
	}
	link->connecting = false;
	send_done(the_conn, id);
	return true;
}

static void ready(struct watch *watch, u32 events)
{
	struct link *link = container_of(watch, struct link, watch);
	int error = 0;
	socklen_t size = sizeof error;

	if (link->connecting && events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && !connected(link))
		return;
	if (events & EPOLLERR && getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
		end(link, error);
		return;
	}
	if (events & EPOLLOUT && !put_out(link))
		return;
	if (events & (EPOLLIN | EPOLLHUP) && !take_in(link))
		return;
	choose_events(link);
}

/* A hang-up is reported whatever is asked for, so a link that waits for its host asks for nothing at all. */
static void choose_events(struct link *link)
{
	u32 wanted = 0;

	if (link->connecting || link->start < link->end)
		wanted |= EPOLLOUT;
	if (!link->connecting && !link->eof_in && !link->op.stalled)
		wanted |= EPOLLIN;
	if (!wanted)
		watch_remove(&link->watch);
	else if (link->watch.added)
		watch_events(&link->watch, wanted);
	else if (watch_add(&link->watch, link->watch.fd, wanted, ready) < 0)
		end(link, ENOMEM);
}

static void resume(struct op *op)
{
	struct link *link = container_of(op, struct link, op);

	if (take_in(link))
		choose_events(link);
}

static void lost(struct op *op) { free_link(container_of(op, struct link, op)); }

static const struct op_class link_class = {.resume = resume, .lost = lost};

static struct link *find(u32 id)
{
	struct op *op = op_find(id);

	return op && op->class == &link_class ? container_of(op, struct link, op) : NULL;
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
		end(link, EPROTO);
		return false;
	}
	link->op.received += data.size;
	if (link->start == link->end) {
		ssize_t sent = send(link->watch.fd, data.data, data.size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			end(link, errno);
			return false;
		}
		if (sent > 0) {
			data.data += sent;
			data.size -= (u32)sent;
			taken(link, (size_t)sent);
		}
	}
	if (data.size && !keep(link, data)) {
		end(link, ENOMEM);
		return false;
	}
	return true;
}

int op_link_frame(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes data = read_rest(r);
	struct link *link = find(id);

	(void)conn;
	if (!link)
		return 0;
	if (data.size == 0) {
		link->eof_out = true;
		if (!put_out(link))
			return 0;
	} else if (!send_on(link, data)) {
		return 0;
	}
	choose_events(link);
	return 0;
}

int op_link_reset(struct conn *conn, u32 id, struct reader *r)
{
	struct link *link = find(id);

	(void)conn;
	if (read_end(r) && link)
		end(link, ECANCELED);
	return 0;
}

/* A link on `fd`, which is closed when that fails. */
static struct link *make_link(int fd, u32 id, u32 events)
{
	int yes = 1;
	struct link *link = calloc(1, sizeof *link);

	if (link && op_add(&link->op, id, &link_class) == 0) {
		if (watch_add(&link->watch, fd, events, ready) == 0) {
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
			links++;
			return link;
		}
		op_remove(&link->op);
	}
	free(link);
	close(fd);
	return NULL;
}

void link_accepted(int fd, u32 listener, u16 peer_port)
{
	do
		last_id = last_id == UINT32_MAX ? GUEST_IDS : last_id + 1;
	while (op_find(last_id));
	if (!make_link(fd, last_id, EPOLLIN))
		return;
	frame_begin(the_conn, ANSWER_ACCEPT, last_id);
	put_u32(the_conn, listener);
	put_u16(the_conn, peer_port);
	frame_end(the_conn);
}

int op_connect(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes text = read_str(r);
	u16 port = read_u16(r);
	struct address address;

	(void)conn;
	if (!read_end(r))
		return 0;
	if (id >= GUEST_IDS || !port || !parse_loopback(text, port, &address))
		return -EINVAL;
	if (!link_room())
		return -EAGAIN;
	int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int now = connect(fd, (struct sockaddr *)&address.storage, address.size);
	if (now < 0 && errno != EINPROGRESS) {
		int error = -errno;
		close(fd);
		return error;
	}
	struct link *link = make_link(fd, id, EPOLLOUT);
	if (!link)
		return -ENOMEM;
	link->connecting = true;
	if (now == 0 && connected(link))
		choose_events(link);
	return 0;
}
