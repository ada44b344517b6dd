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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_COMMAND = 2 /* in a pid namespace of its own */ };
enum {
	AHEAD = 1, /* forked ahead */
	KEPT = 4,  /* of those that are free again */
	WHILE_MS = 200,
	MANY_FILES = 128,
	ROOM_FILES = 8192, /* with that many a guest has room for all that a session may start */
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

static void close_theirs(struct supervisor *supervisor)
{
	if (supervisor->theirs >= 0)
		close(supervisor->theirs);
	supervisor->theirs = -1;
}

static bool files_are_few(void)
{
	struct rlimit files;
	return getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur < ROOM_FILES;
}

/* Beside many others that is a descriptor less for each; it has no other job then, and the next command waits for a fork. */
void supervisor_has_read(struct supervisor *supervisor)
{
	if (supervisor->theirs >= MANY_FILES && files_are_few())
		close_theirs(supervisor);
}

void supervisor_free(struct supervisor *supervisor)
{
	int most = supervisor->counted ? AHEAD : KEPT;
	supervisor->exec = NULL;
	bool as_before = supervisor->filter_changes == filter_changes && !supervisor->grown && supervisor->theirs >= 0;
	if (idle_count < most && as_before)
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

static void supervisor_remove(struct supervisor *supervisor)
{
	int error = errno;
	watch_remove(&supervisor->watch);
	close(supervisor->watch.fd);
	close_theirs(supervisor);
	if (supervisor->told)
		munmap(supervisor->told, sizeof *supervisor->told);
	free(supervisor);
	errno = error;
}

/* With both ends of its socket, and memory that it has in common with the agent alone. */
static struct supervisor *supervisor_new(void)
{
	struct supervisor *supervisor = calloc(1, sizeof *supervisor);
	int pair[2];
	if (!supervisor || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		free(supervisor);
		return NULL;
	}
	supervisor->watch.fd = pair[0];
	supervisor->theirs = pair[1];
	void *told = mmap(NULL, sizeof *supervisor->told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED) {
		supervisor_remove(supervisor);
		return NULL;
	}
	supervisor->told = told;
	supervisor->told->next_pid = FIRST_COMMAND;
	return supervisor;
}

static struct supervisor *supervisor_fork(void)
{
	struct supervisor *supervisor = supervisor_new();
	if (!supervisor)
		return NULL;
	pid_t pid = fork();
	if (pid == 0)
		supervise(supervisor->theirs, supervisor->told);
	int error = pid < 0 ? errno : -watch_add(&supervisor->watch, supervisor->watch.fd, EPOLLIN, supervisor_ready);
	if (error) {
		errno = error;
		supervisor_remove(supervisor); /* it sees that and ends */
		return NULL;
	}
	madvise(supervisor->told, sizeof *supervisor->told, MADV_DONTFORK);
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

/* In a pid namespace of its own its first process may be about to die on another processor: whether its command ended is
 * read before how. */
static struct told last_told(const struct supervisor *supervisor)
{
	bool ended = __atomic_load_n(&supervisor->told->report.ended, __ATOMIC_ACQUIRE);
	struct told told = *supervisor->told;
	told.report.ended = ended;
	return told;
}

static void supervisor_ended(struct child *child, int status)
{
	struct supervisor *supervisor = container_of(child, struct supervisor, child);
	while (take_report(supervisor))
		;
	forget_idle(supervisor);
	struct exec *exec = supervisor->exec;
	if (exec && supervisor->stopped_others)
		signal_uid(exec->uid, SIGCONT);
	if (exec && job_give_again(supervisor))
		exec = NULL;
	struct told told = last_told(supervisor);
	supervisor_remove(supervisor); /* what lies unread there may hold the command's output open */
	if (exec)
		exec_supervisor_ended(exec, &told, status == 0);
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
