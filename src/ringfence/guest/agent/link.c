/* One TCP connection of the forward: its events, what comes from inside, its end. */
#include "forward.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 192 * 1024 };

void link_free(struct link *link)
{
	watch_remove(&link->watch);
	close(link->watch.fd);
	free(link->pending);
	free(link);
	link_freed();
}

void link_end(struct link *link, int error)
{
	struct linger at_once = {1, 0};

	op_remove(&link->op);
	if (error)
		setsockopt(link->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	frame_begin(the_conn, ANSWER_CLOSED, link->op.id);
	put_u32(the_conn, (u32)error);
	frame_end(the_conn);
	link_free(link);
}

bool link_still(struct link *link)
{
	if (!link->eof_in || !link->shut)
		return true;
	link_end(link, 0);
	return false;
}

/* One frame from the socket, which the window has room for: the bytes, 0 at the end, -errno. */
static ssize_t receive(struct link *link)
{
	u64 room = op_room(&link->op);
	size_t most = room < READ_BYTES ? room : READ_BYTES;

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

static bool has_room(const struct link *link) { return op_room(&link->op) && conn_room(the_conn); }

/* What was said inside before it broke goes out first, as far as there is room. */
void link_broke(struct link *link, int error)
{
	u8 next;

	while (!link->eof_in && has_room(link) && recv(link->watch.fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
		receive(link);
	link_end(link, error);
}

static bool link_take_in(struct link *link)
{
	if (link->eof_in || link->connecting)
		return true;
	if (!has_room(link)) {
		link->op.stalled = true;
		return true;
	}
	ssize_t got = receive(link);
	if (got == -EAGAIN || got == -EINTR)
		return true;
	if (got < 0) {
		link_end(link, (int)-got);
		return false;
	}
	link->eof_in = got == 0;
	return link_still(link);
}

void link_ready(struct watch *watch, u32 events)
{
	struct link *link = container_of(watch, struct link, watch);
	int error = 0;
	socklen_t size = sizeof error;

	if (link->connecting && events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && !link_connected(link))
		return;
	if (events & EPOLLERR && getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error) {
		link_broke(link, error);
		return;
	}
	if (events & EPOLLOUT && !link_put_out(link))
		return;
	if (events & (EPOLLIN | EPOLLHUP) && !link_take_in(link))
		return;
	link_choose_events(link);
}

/* A hang-up is reported whatever is asked for, so a link that waits for its host asks for nothing at all. */
void link_choose_events(struct link *link)
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
	else if (watch_add(&link->watch, link->watch.fd, wanted, link_ready) < 0)
		link_end(link, ENOMEM);
}

static void resume(struct op *op)
{
	struct link *link = container_of(op, struct link, op);

	if (link_take_in(link))
		link_choose_events(link);
}

static void lost(struct op *op) { link_free(container_of(op, struct link, op)); }

const struct op_class link_class = {.resume = resume, .lost = lost};

struct link *link_find(u32 id)
{
	struct op *op = op_find(id);

	return op && op->class == &link_class ? container_of(op, struct link, op) : NULL;
}

int op_link_reset(struct conn *conn, u32 id, struct reader *r)
{
	struct link *link = link_find(id);

	(void)conn;
	if (read_end(r) && link)
		link_end(link, ECANCELED);
	return 0;
}

