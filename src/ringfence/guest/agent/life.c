/* The session, the lease and the lifetime. */
#include "agent.h"
#include "core.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { PING_BYTES = 64 };

static u64 started_ms, heard_ms, lease_ms, sessions;
static bool detached, has_lifetime;
static struct timer lease, lifetime;
static struct watch lifeline;
static int lifeline_fd = -1;

/* Supervisors that see the agent gone kill their families; as PID 1 the kernel does it. */
void life_shutdown(void)
{
	if (getpid() == 1)
		kill(-1, SIGKILL);
	loop_stop(0);
}

void lifeline_given(int descriptor)
{
	lifeline_fd = fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0 ? -1 : descriptor;
}

static void keeper_ended(struct watch *watch, u32 events)
{
	(void)watch;
	(void)events;
	life_shutdown();
}

static void lifetime_over(struct timer *timer)
{
	(void)timer;
	life_shutdown();
}

static void session_over(void)
{
	if (detached)
		conn_end_session(the_conn);
	else
		life_shutdown();
}

static void lease_over(struct timer *timer)
{
	u64 now = now_ms();
	if (sessions && !conn_in_session(the_conn) && detached)
		return;
	if (now - heard_ms >= lease_ms)
		session_over();
	else
		timer_set(timer, lease_ms - (now - heard_ms), lease_over);
}

static void set_lease(u32 milliseconds, u64 lifetime_ms)
{
	lease_ms = milliseconds;
	timer_set(&lease, lease_ms, lease_over);
	if (lifetime_ms) {
		has_lifetime = true;
		timer_set(&lifetime, lifetime_ms, lifetime_over);
	}
}

void life_heard(void) { heard_ms = now_ms(); }
bool life_detached(void) { return detached; }

/* The stream ended, or the host broke the protocol on it. for_good: no other stream can come. */
void life_stream_lost(bool for_good)
{
	if (sessions || for_good)
		session_over();
	else
		conn_end_session(the_conn);
}

void life_start(const struct options *options)
{
	started_ms = heard_ms = now_ms();
	set_lease(options->lease_ms, 0);
	if (lifeline_fd >= 0)
		watch_add(&lifeline, lifeline_fd, 0, keeper_ended);  /* its end is told unasked */
}

int op_hello(struct conn *conn, u32 id, struct reader *r)
{
	u32 version = read_u32(r);
	struct bytes marker = read_raw(r, MARKER_BYTES), next = read_raw(r, MARKER_BYTES);
	u32 wanted_lease = read_u32(r);
	u64 wanted_lifetime = read_u64(r);
	u8 wanted_life = read_u8(r);
	(void)version;
	if (!read_end(r) || conn_in_session(conn) || wanted_life > 1) {
		r->bad = true;
		conn_refuse(conn);
		return 0;
	}
	if (wanted_life == 1 && !wanted_lifetime && !has_lifetime) {
		conn_refuse(conn);
		return 0;
	}
	sessions++;
	detached = wanted_life == 1;
	set_lease(wanted_lease, wanted_lifetime);
	conn_greeted(conn, next.data);
	frame_begin(conn, ANSWER_HELLO, id);
	put_raw(conn, marker.data, MARKER_BYTES);
	put_u32(conn, PROTOCOL_VERSION);
	put_u64(conn, features());
	put_u32(conn, reserved_uid);
	put_u64(conn, sessions);
	put_u64(conn, now_ms() - started_ms);
	put_str(conn, BUILD, strlen(BUILD));
	frame_end(conn);
	return 0;
}

int op_ping(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes nonce = read_rest(r);
	if (nonce.size > PING_BYTES)
		r->bad = true;
	if (r->bad)
		return 0;
	frame_begin(conn, ANSWER_PONG, id);
	put_raw(conn, nonce.data, nonce.size);
	frame_end(conn);
	return 0;
}

int op_lease(struct conn *conn, u32 id, struct reader *r)
{
	u32 wanted_lease = read_u32(r);
	u64 wanted_lifetime = read_u64(r);
	if (!read_end(r))
		return 0;
	set_lease(wanted_lease, wanted_lifetime);
	send_done(conn, id);
	return 0;
}

int op_shutdown(struct conn *conn, u32 id, struct reader *r)
{
	(void)conn;
	(void)id;
	if (read_end(r))
		life_shutdown();
	return 0;
}
