/* Supervisors: a few wait for a job, forked ahead or free again. Each serves one exec at a time. One that is free again is
 * the first to be taken: it is ready, with what it needs in the processor's caches. Another is forked ahead only for a
 * command that goes on for a while, since one that ends soon leaves its supervisor for the next.
 */
#include "exec.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	AHEAD = 1, /* forked ahead */
	KEPT = 4,  /* of those that are free again */
	WHILE_MS = 200,
};

static struct supervisor *idle;  /* those that served before, then those that were forked, the oldest first */
static int idle_count;
static struct timer later;

static void supervisor_ended(struct child *child, int status);

/* One report; false when there was none. */
static bool take_report(struct supervisor *supervisor)
{
	struct report report;
	ssize_t got = recv(supervisor->watch.fd, &report, sizeof report, MSG_DONTWAIT);
	if (got != sizeof report) {
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			watch_remove(&supervisor->watch);
		return false;
	}
	if (report.kinds & REPORT_NEEDS_SIGNAL) {
		struct exec *exec = supervisor->exec;
		bool ok = exec && signal_uid(exec->uid, report.number);
		if (ok && report.number == SIGKILL)
			exec_collateral(exec->uid, exec);
		supervisor->stopped_others = ok && report.number == SIGSTOP;
		supervisor_tell(supervisor, TELL_SIGNALLED, 0, ok);
	}
	if (supervisor->exec)
		exec_reported(supervisor->exec, &report);
	return true;
}

static void supervisor_ready(struct watch *watch, u32 events)
{
	(void)events;
	take_report(container_of(watch, struct supervisor, watch));
}

static void add_idle(struct supervisor **at, struct supervisor *supervisor)
{
	supervisor->next = *at;
	*at = supervisor;
	idle_count++;
}

/* It ends when it waits for a job, or with the family that it has. */
void supervisor_dismiss(struct supervisor *supervisor) { shutdown(supervisor->watch.fd, SHUT_WR); }

void supervisor_free(struct supervisor *supervisor)
{
	int most = supervisor->counted ? AHEAD : KEPT;
	supervisor->exec = NULL;
	if (idle_count < most && supervisor->filter_changes == filter_changes && !supervisor->grown)
		add_idle(&idle, supervisor);
	else
		supervisor_dismiss(supervisor);
}

void supervisors_renew(void)
{
	while (idle) {
		supervisor_dismiss(idle);
		idle = idle->next;
	}
	idle_count = 0;
	pool_fill();
}

static struct supervisor *supervisor_fork(void)
{
	struct supervisor *supervisor = calloc(1, sizeof *supervisor);
	int pair[2];
	if (!supervisor || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		free(supervisor);
		return NULL;
	}
	pid_t pid = fork();
	if (pid == 0)
		supervise(pair[1]);
	int error = errno;
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		free(supervisor);
		errno = error;
		return NULL;
	}
	error = -watch_add(&supervisor->watch, pair[0], EPOLLIN, supervisor_ready);
	if (error) {
		close(pair[0]); /* it sees that and ends */
		free(supervisor);
		errno = error;
		return NULL;
	}
	child_add(&supervisor->child, pid, supervisor_ended);
	return supervisor;
}

static bool has_enough(void) { return idle_count >= AHEAD; }

static void fork_ahead(void)
{
	if (has_enough())
		return;
	struct supervisor *supervisor = supervisor_fork();
	if (!supervisor)
		return;
	struct supervisor **last = &idle;
	while (*last)
		last = &(*last)->next;
	add_idle(last, supervisor);
	pool_fill();
}

static void fork_later(struct timer *timer)
{
	(void)timer;
	fork_ahead();
}

/* Not where a command was begun before there was time for it: its supervisor may soon be free again. */
static void fork_idly(void)
{
	if (!later.set)
		fork_ahead();
}

static void forget_idle(const struct supervisor *supervisor)
{
	for (struct supervisor **at = &idle; *at; at = &(*at)->next)
		if (*at == supervisor) {
			*at = supervisor->next;
			idle_count--;
			return;
		}
}

static void supervisor_ended(struct child *child, int status)
{
	struct supervisor *supervisor = container_of(child, struct supervisor, child);
	while (take_report(supervisor))
		;
	forget_idle(supervisor);
	watch_remove(&supervisor->watch);
	close(supervisor->watch.fd);
	if (supervisor->exec && supervisor->stopped_others)
		signal_uid(supervisor->exec->uid, SIGCONT);
	if (supervisor->exec)
		exec_supervisor_ended(supervisor->exec, status == 0);
	free(supervisor);
}

struct supervisor *supervisor_take(void)
{
	struct supervisor *supervisor = idle;
	if (!supervisor)
		supervisor = supervisor_fork();
	else
		forget_idle(supervisor);
	pool_refill();
	if (supervisor)
		supervisor->filter_changes = filter_changes;
	return supervisor;
}

static bool limits_processes(const struct job *job)
{
	for (u32 i = 0; i < job->limit_count; i++)
		if (job->limits[i].resource == RLIMIT_NPROC)
			return true;
	return false;
}

static int strings_file(const struct job *job, const char *strings)
{
	int fd = memfd_create("job", MFD_CLOEXEC);
	u64 done = 0;
	while (fd >= 0 && done < job->strings) {
		ssize_t wrote = write(fd, strings + done, job->strings - done);
		if (wrote < 0) {
			close(fd);
			return -1;
		}
		done += (u64)wrote;
	}
	return fd;
}

int supervisor_send(struct supervisor *supervisor, const struct job *job, const char *strings, const int *fds, int count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(JOB_FDS * sizeof(int))];
	} control = {0};
	bool inlined = job->strings <= INLINE_STRINGS;
	int file = inlined ? -1 : strings_file(job, strings);
	supervisor->grown |= !inlined;
	supervisor->counted = own_pid_namespace && limits_processes(job);
	if (!inlined && file < 0)
		return -errno;
	int all[JOB_FDS];
	memcpy(all, fds, (size_t)count * sizeof *fds);
	if (file >= 0)
		all[count++] = file;
	struct iovec parts[2] = {{(void *)job, sizeof *job}, {(void *)strings, inlined ? job->strings : 0}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control,
				 .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
	control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN((size_t)count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), all, (size_t)count * sizeof(int));
	ssize_t sent = sendmsg(supervisor->watch.fd, &message, MSG_NOSIGNAL);
	int error = sent < 0 ? -errno : 0;
	if (file >= 0)
		close(file);
	return error;
}

void supervisor_tell(struct supervisor *supervisor, u32 kind, u32 number, bool flag)
{
	struct tell tell = {.kind = kind, .number = number, .group = flag, .ok = flag};
	send(supervisor->watch.fd, &tell, sizeof tell, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void pool_fill(void)
{
	if (!has_enough())
		when_idle(fork_idly);
}

void pool_refill(void)
{
	if (!has_enough() && !later.set)
		timer_set(&later, WHILE_MS, fork_later);
}
