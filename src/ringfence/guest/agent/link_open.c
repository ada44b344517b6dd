/* How connections of the forward begin: accepted from inside, or asked for by the host. */
#include "forward.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static u32 links;
static u32 last_id = GUEST_IDS - 1;

bool link_room(void) { return links < LINKS_MOST; }

void link_freed(void)
{
	if (links-- == LINKS_MOST)
		forward_room();
}

bool link_connected(struct link *link)
{
	int error = 0;
	socklen_t size = sizeof error;
	u32 id = link->op.id;

	getsockopt(link->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		op_remove(&link->op);
		link_free(link);
		send_fail(the_conn, id, error, 0, "");
		return false;
	}
	link->connecting = false;
	send_done(the_conn, id);
	return true;
}

/* A link on `fd`, which is closed when that fails. */
static struct link *make_link(int fd, u32 id, u32 events)
{
	int yes = 1;
	struct link *link = calloc(1, sizeof *link);

	if (link && op_add(&link->op, id, &link_class) == 0) {
		if (watch_add(&link->watch, fd, events, link_ready) == 0) {
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
	if (now == 0 && link_connected(link))
		link_choose_events(link);
	return 0;
}
