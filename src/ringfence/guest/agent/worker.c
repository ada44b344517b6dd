/* Long path operations run in a process of their own, as the user: a slow or hostile tree holds up nobody else.
 * Each message from the worker is one frame: u8 op, payload; FAIL carries a u32 errno only. */
#include "files.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct worker {
	struct op op;
	struct child child;
	struct watch watch;
	int fd;
	bool windowed;
	bool running, gone;  /* the process is not reaped yet; the operation is over */
};

static int host = -1;  /* in the worker: its way to the agent */

/* ---- in the worker ---- */

void worker_send(u8 op, const void *payload, size_t size)
{
	struct iovec parts[2] = {{&op, 1}, {(void *)(uintptr_t)payload, size}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	ssize_t sent;

	do
		sent = sendmsg(host, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		_exit(1);
}

void open_many(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static _Noreturn void work(const struct cred *cred, const struct job *job, int fd)
{
	u8 payload[8] = {0};
	u64 done = 0;

	host = fd;
	close_all_but(fd, fd);
	int error = become_worker(cred);
	umask(0);
	if (error == 0)
		error = job->run(job, &done);
	if (error < 0)
		worker_send(ANSWER_FAIL, payload, (size_t)(pack_u32(payload, (u32)-error) - payload));
	else
		worker_send(ANSWER_DONE, payload, (size_t)(pack_u64(payload, done) - payload));
	_exit(0);
}

/* ---- in the agent ---- */

static void free_when_over(struct worker *worker)
{
	if (worker->gone && !worker->running)
		free(worker);
}

static void stop(struct worker *worker)
{
	watch_remove(&worker->watch);
	close(worker->fd);
	if (worker->running)
		kill(worker->child.pid, SIGKILL);
	worker->gone = true;
}

static void end(struct worker *worker)
{
	op_remove(&worker->op);
	stop(worker);
	free_when_over(worker);
}

static void fail(struct worker *worker, int error)
{
	send_fail(the_conn, worker->op.id, error, 0, "");
	end(worker);
}

static void child_ended(struct child *child, int status)
{
	struct worker *worker = container_of(child, struct worker, child);

	(void)status;
	worker->running = false;
	free_when_over(worker);
}

/* Take one message; false when the worker is over (and freed). */
static bool pass_on(struct worker *worker)
{
	static u8 message[1 + WORKER_MESSAGE_BYTES];
	ssize_t got = recv(worker->fd, message, sizeof message, MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (got < 5) {
		fail(worker, EIO);
		return false;
	}
	if (message[0] == ANSWER_FAIL) {
		struct reader fields = {message + 1, message + got, false};
		fail(worker, (int)read_u32(&fields));
		return false;
	}
	frame_begin(the_conn, message[0], worker->op.id);
	put_raw(the_conn, message + 1, (size_t)got - 1);
	frame_end(the_conn);
	worker->op.sent += worker->windowed ? (u64)got - 1 : 0;
	if (message[0] != ANSWER_DONE)
		return true;
	end(worker);
	return false;
}

static bool has_room(const struct worker *worker)
{
	return conn_room(the_conn) && (!worker->windowed || op_room(&worker->op) >= WORKER_MESSAGE_BYTES);
}

static void ready(struct watch *watch, u32 events)
{
	struct worker *worker = container_of(watch, struct worker, watch);

	(void)events;
	if (has_room(worker)) {
		pass_on(worker);
		return;
	}
	worker->op.stalled = true;
	watch_remove(watch);
}

static void resume(struct op *op)
{
	struct worker *worker = container_of(op, struct worker, op);

	if (!has_room(worker))
		op->stalled = true;
	else if (watch_add(&worker->watch, worker->fd, EPOLLIN, ready) < 0)
		fail(worker, ENOMEM);
}

static int frame(struct op *op, u8 code, struct reader *r)
{
	if (code == OP_CANCEL && read_end(r))
		fail(container_of(op, struct worker, op), ECANCELED);
	return 0;
}

static void lost(struct op *op)
{
	struct worker *worker = container_of(op, struct worker, op);

	stop(worker);
	free_when_over(worker);
}

static const struct op_class worker_class = {.frame = frame, .resume = resume, .lost = lost};

static int fork_worker(struct worker *worker, const struct cred *cred, const struct job *job)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0)
		work(cred, job, ends[1]);
	int error = pid < 0 ? -errno : 0;
	close(ends[1]);
	worker->fd = ends[0];
	if (pid > 0) {
		child_add(&worker->child, pid, child_ended);
		worker->running = true;
		error = watch_add(&worker->watch, ends[0], EPOLLIN, ready);
	}
	return error;
}

int worker_start(u32 id, const struct cred *cred, const struct job *job)
{
	struct worker *worker = calloc(1, sizeof *worker);
	int error = worker ? op_add(&worker->op, id, &worker_class) : -ENOMEM;

	if (error < 0) {
		free(worker);
		return error;
	}
	worker->fd = -1;
	worker->windowed = job->windowed;
	error = fork_worker(worker, cred, job);
	if (error < 0)
		end(worker);
	return error;
}
