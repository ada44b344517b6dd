/* The life of a supervisor: wait for a job, start it, wait for its end, report, kill its family. It ends with a family that
 * was left or killed; where all ended with the command it waits for the next job.
 */
#include "agent.h"
#include "core.h"
#include "supervisor.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	COALESCE_NS = 1000000,      /* how long STARTED waits for an EXITED that may follow at once */
	NAP_NS = 100000,
	NAPS_IN_A_ROUND = 10,
	GENTLE_ROUNDS = 3,          /* before the whole user is stopped meanwhile */
	USER_KILL_US = 2000 * 1000, /* before the whole user is killed: long, since on a busy machine the dying need it */
};

static int host;    /* the agent's end: reports go there */
static int tells;   /* where tells come from: the same, or the supervisor outside of this pid namespace */
static pid_t main_pid;
static struct told *told;
static bool subreaper, filtered;
static u32 reaped_killed;

bool have_subreaper(void)
{
	int set = 0;
	return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 && prctl(PR_GET_CHILD_SUBREAPER, &set, 0, 0, 0) == 0 && set;
}

void report_send(int fd, struct told *what, u32 kinds)
{
	struct report *report = &what->report;
	report->kinds = kinds;
	if (!what->start && report->pid) {
		report->kinds |= REPORT_STARTED;
		what->start = true;
	}
	if (report->ended && !what->exit) {
		report->kinds |= REPORT_EXITED;
		what->exit = true;
	}
	while (send(fd, report, sizeof *report, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void told_ended(struct told *what, int status, const struct rusage *usage)
{
	what->report.status = status;
	what->report.usage = *usage;
	what->report.ended_us = now_us();
	__atomic_store_n(&what->report.ended, true, __ATOMIC_RELEASE);
}

/* Reap all there is to reap. A child that asked to be traced is ours to trace, and its stops are told too: it lives. */
static void drain(void)
{
	struct rusage usage;
	int status;
	pid_t pid;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (WIFSTOPPED(status))
			continue;
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			reaped_killed++;
		if (pid == main_pid)
			told_ended(told, status, &usage);
	}
	told->report.empty = pid < 0 && errno == ECHILD;
}

bool wait_for_news(struct pollfd *polls, unsigned count, long ns)
{
	struct timespec time = {ns / 1000000000, ns % 1000000000};
	sigset_t others;
	memset(&others, 0xff, sizeof others);
	sigdelset(&others, SIGCHLD);
	return ppoll(polls, count, ns < 0 ? NULL : &time, &others) > 0;
}

/* Have the agent signal every process of the command's user. */
static bool ask_for_signal(int number)
{
	struct tell tell;
	told->report.number = number;
	report_send(host, told, REPORT_NEEDS_SIGNAL);
	for (;;) {
		ssize_t got = recv(tells, &tell, sizeof tell, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (got == sizeof tell && tell.kind == TELL_SIGNALLED)
			return tell.ok;
	}
}

static void kill_round(u32 round, u64 begun)
{
	bool user_killed = false;
	if (!subreaper || now_us() - begun > USER_KILL_US) {
		user_killed = ask_for_signal(SIGKILL);
	} else if (round > GENTLE_ROUNDS && ask_for_signal(SIGSTOP)) {
		family_signal(SIGKILL, NULL);
		ask_for_signal(SIGCONT);
	}
	if (!user_killed && family_signal(SIGKILL, NULL) == WALK_FAILED)
		ask_for_signal(SIGKILL);
}

/* Until wait4 says ECHILD: then no process of the family exists. Never forks. */
static void kill_family(void)
{
	struct report *report = &told->report;
	struct timespec nap = {0, NAP_NS};
	u64 begun = now_us();
	reaped_killed = 0;
	for (drain(); !report->empty; drain()) {
		report->rounds++;
		kill_round(report->rounds, begun);
		drain();
		for (u32 i = 0; !report->empty && i < NAPS_IN_A_ROUND; i++, drain())
			nanosleep(&nap, NULL);
	}
	report->killed = reaped_killed;
	report->proof = subreaper ? PROOF_ECHILD : PROOF_USER_KILLED;
}

static _Noreturn void killed(void)
{
	report_send(host, told, REPORT_HEARD);
	kill_family();
	report_send(host, told, REPORT_KILLED);
	_exit(0);
}

/* The agent is gone, or the supervisor outside. What this does to the command is no end of its own: nobody is told. */
static _Noreturn void left_alone(void)
{
	static struct told nobody;
	drain();
	told = &nobody;
	kill_family();
	_exit(0);
}

static void take_tell(void)
{
	struct tell tell;
	ssize_t got = recv(tells, &tell, sizeof tell, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
		left_alone();
	if (tell.kind == TELL_KILL)
		killed();
	if (tell.kind != TELL_SIGNAL && tell.kind != TELL_TIMEOUT)
		return;
	drain();
	if (told->report.ended)
		return;
	told->report.timed_out |= tell.kind == TELL_TIMEOUT;
	kill(tell.group ? -main_pid : main_pid, (int)tell.number);
}

/* Whether a command could have changed its supervisor, or nobody can tell who is left, is decided before the report. */
static bool can_serve_again(void)
{
	bool unchanged = own_pid_namespace ? nest_over(tells, filtered) : can_switch;
	return unchanged && subreaper;
}

/* Until nobody is left. It returns when that was reported with the end of the command: the agent gives it the next job
 * then, or has it end. */
static void watch_over(void)
{
	struct pollfd poll = {.fd = tells, .events = POLLIN};
	bool first = true;
	for (;;) {
		bool news = wait_for_news(&poll, 1, first ? COALESCE_NS : -1);
		drain();
		bool due = !told->start || (told->report.ended && !told->exit);
		bool empty = told->report.empty;
		if (due && empty)
			told->report.free = can_serve_again();
		if (due)
			report_send(host, told, 0); /* after it `told` may be the next job's */
		if (empty && due)
			return;
		if (empty)
			_exit(0);
		first = false;
		if (news)
			take_tell();
	}
}

static void nothing(int number) { (void)number; }

/* For root inside, a descriptor has the kernel send any signal to any process. The kernel's call, since the library
 * keeps 32 to 34 to itself. */
static void block_signals(void)
{
	sigset_t all;
	memset(&all, 0xff, sizeof all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
}

static void start_next(void)
{
	struct command command;
	if (!filtered)
		filtered = seccomp_ahead && seccomp_ahead();
	enum next next = job_receive(host, &command);
	if (next == JOB_NONE)
		_exit(0);
	if (next == JOB_KILL)
		killed();
	if (own_pid_namespace)
		nest_begun(tells, filtered);
	command.filtered = filtered;
	told->begun = true;
	main_pid = command_start(&command);
	if (main_pid < 0) {
		told->report.error = -main_pid;
		told->report.stage = command.stage;
		report_send(host, told, REPORT_FAILED);
		_exit(0);
	}
	told->next_pid = (u32)main_pid + 1;
	__atomic_store_n(&told->report.pid, (u32)main_pid, __ATOMIC_RELEASE);
	job_free(&command);
}

_Noreturn void supervise(int fd, struct told *shared)
{
	struct sigaction action = {.sa_handler = nothing};
	host = tells = fd;
	told = shared;
	close_all_but(fd, fd);
	sigaction(SIGCHLD, &action, NULL);
	block_signals();
	subreaper = have_subreaper();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (own_pid_namespace)
		nest(host, &tells, told);
	for (;;) {
		start_next();
		watch_over();
	}
}
