/* Forward: TCP between the host and the loopback inside. Listeners, and what they accept; connections are link.c's.
 *
 * A listener of a detached sandbox is kept when its session ends, so that no command takes its port: who dials meanwhile
 * is closed at once, and a LISTEN of a later session at the same address and port takes it up. */
#include "forward.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024, RETRY_MS = 100, ACCEPTS_AT_ONCE = 64 };

struct listener {
	struct op op;
	struct watch watch;
	struct timer retry;
	struct listener *next;
	struct address asked;
	bool kept;  /* no session has it, and its op is in no table */
};
static struct listener *listeners;
static u32 listener_count;

bool parse_loopback(struct bytes text, u16 port, struct address *address)
{
	char copy[INET6_ADDRSTRLEN + 1];
	struct sockaddr_in *four = (struct sockaddr_in *)&address->storage;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->storage;

	memset(address, 0, sizeof *address);
	if (!copy_str(text, copy, sizeof copy))
		return false;
	if (inet_pton(AF_INET, copy, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		address->size = sizeof *four;
		return ntohl(four->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	}
	if (inet_pton(AF_INET6, copy, &six->sin6_addr) != 1)
		return false;
	six->sin6_family = AF_INET6;
	six->sin6_port = htons(port);
	address->size = sizeof *six;
	return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

static u16 port_of(const struct address *address)
{
	const struct sockaddr_in *four = (const struct sockaddr_in *)&address->storage;
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&address->storage;

	return ntohs(four->sin_family == AF_INET ? four->sin_port : six->sin6_port);
}

static void ready(struct watch *watch, u32 events);

static void retry(struct timer *timer)
{
	struct listener *listener = container_of(timer, struct listener, retry);

	watch_events(&listener->watch, EPOLLIN);
}

void forward_room(void)
{
	for (struct listener *listener = listeners; listener; listener = listener->next)
		if (!listener->retry.set)
			watch_events(&listener->watch, EPOLLIN);
}

static void ready(struct watch *watch, u32 events)
{
	struct listener *listener = container_of(watch, struct listener, watch);
	struct address peer;

	(void)events;
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		if (!listener->kept && !link_room()) {
			watch_events(watch, 0);
			return;
		}
		peer.size = sizeof peer.storage;
		int fd = accept4(watch->fd, (struct sockaddr *)&peer.storage, &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			watch_events(watch, 0);
			timer_set(&listener->retry, RETRY_MS, retry);
			return;
		}
		if (fd < 0)
			return;
		if (listener->kept)
			close(fd);
		else
			link_accepted(fd, listener->op.id, port_of(&peer));
	}
}

static void free_listener(struct listener *listener)
{
	for (struct listener **at = &listeners; *at; at = &(*at)->next)
		if (*at == listener) {
			*at = listener->next;
			break;
		}
	listener_count--;
	timer_clear(&listener->retry);
	watch_remove(&listener->watch);
	/* A process just forked may still hold it: this ends it for all. */
	shutdown(listener->watch.fd, SHUT_RDWR);
	close(listener->watch.fd);
	free(listener);
}

/* Who asked for any port has no claim to the one it got. */
static void lost(struct op *op)
{
	struct listener *listener = container_of(op, struct listener, op);

	if (!life_detached() || !port_of(&listener->asked)) {
		free_listener(listener);
		return;
	}
	listener->kept = true;
	if (!listener->retry.set)
		watch_events(&listener->watch, EPOLLIN);
}

static const struct op_class listener_class = {.lost = lost};

/* A listening socket; `address` is as bound then. */
static int open_listening(struct address *address)
{
	int yes = 1;
	int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr *bound = (struct sockaddr *)&address->storage;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(fd, bound, address->size) == 0 && listen(fd, BACKLOG) == 0 && getsockname(fd, bound, &address->size) == 0)
		return fd;
	int error = -errno;
	close(fd);
	return error;
}

static int start_listener(u32 id, int fd, const struct address *asked)
{
	struct listener *listener = calloc(1, sizeof *listener);
	int error = listener ? op_add(&listener->op, id, &listener_class) : -ENOMEM;

	if (error == 0) {
		error = watch_add(&listener->watch, fd, EPOLLIN, ready);
		if (error < 0)
			op_remove(&listener->op);
	}
	if (error < 0) {
		free(listener);
		close(fd);
		return error;
	}
	listener->asked = *asked;
	listener->next = listeners;
	listeners = listener;
	listener_count++;
	return 0;
}

static struct listener *kept_at(const struct address *asked)
{
	struct listener *listener = listeners;

	while (listener && !(listener->kept && memcmp(&listener->asked.storage, &asked->storage, asked->size) == 0))
		listener = listener->next;
	return listener;
}

/* Take up what an earlier session left there, or listen anew; `asked` becomes the address as bound. */
static int have_listener(u32 id, struct address *asked)
{
	struct listener *kept = kept_at(asked);
	struct address wanted = *asked;

	if (kept) {
		int error = op_add(&kept->op, id, &listener_class);
		kept->kept = error < 0;
		return error;
	}
	if (listener_count == LISTENERS_MOST)
		return -EAGAIN;
	int fd = open_listening(asked);
	return fd < 0 ? fd : start_listener(id, fd, &wanted);
}

static int op_listen(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes text = read_str(r);
	u16 port = read_u16(r);
	struct address address;

	if (!read_end(r))
		return 0;
	if (id >= GUEST_IDS || !parse_loopback(text, port, &address))
		return -EINVAL;
	int error = have_listener(id, &address);
	if (error < 0)
		return error;
	frame_begin(conn, ANSWER_DONE, id);
	put_u16(conn, port_of(&address));
	frame_end(conn);
	return 0;
}

static int op_close_listener(struct conn *conn, u32 id, struct reader *r)
{
	u32 listener_id = read_u32(r);

	if (!read_end(r))
		return 0;
	for (struct listener *listener = listeners; listener; listener = listener->next)
		if (listener->op.id == listener_id && !listener->kept) {
			op_remove(&listener->op);
			free_listener(listener);
			send_done(conn, id);
			return 0;
		}
	return -ENOENT;
}

int forward_start(void)
{
	dispatch_set(OP_LISTEN, op_listen);
	dispatch_set(OP_CONNECT, op_connect);
	dispatch_set(OP_CLOSE_LISTENER, op_close_listener);
	dispatch_set(OP_SEND, op_link_frame);
	dispatch_set(OP_RESET, op_link_reset);
	return 0;
}
