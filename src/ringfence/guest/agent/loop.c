/* The one epoll loop: file descriptors, timers, children, signals. */
#include "agent.h"
#include "core.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, LONGEST_WAIT_MS = 10000, IDLE_WORKS = 4 };

static int epoll_fd = -1;
static struct epoll_event batch[BATCH];
static int batch_size;
static struct timer *timers;
static struct child *children;
static void (*idle_works[IDLE_WORKS])(void);
static int idle_count;
static bool running;
static int exit_status;
static struct watch signals;

static u64 clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

u64 now_ms(void) { return clock_ns() / 1000000; }
u64 now_us(void) { return clock_ns() / 1000; }

int watch_add(struct watch *watch, int fd, u32 events, void (*ready)(struct watch *, u32))
{
	struct epoll_event event = {.events = events, .data.ptr = watch};
	*watch = (struct watch){.fd = fd, .events = events, .ready = ready};
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return -errno;
	watch->added = true;
	return 0;
}

void watch_events(struct watch *watch, u32 events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};
	if (!watch->added || watch->events == events)
		return;
	watch->events = events;
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
}

void watch_remove(struct watch *watch)
{
	if (!watch->added)
		return;
	watch->added = false;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	for (int i = 0; i < batch_size; i++)
		if (batch[i].data.ptr == watch)
			batch[i].data.ptr = NULL;
}

void timer_clear(struct timer *timer)
{
	if (!timer->set)
		return;
	timer->set = false;
	for (struct timer **at = &timers; *at; at = &(*at)->next)
		if (*at == timer) {
			*at = timer->next;
			return;
		}
}

void timer_set(struct timer *timer, u64 milliseconds, void (*fire)(struct timer *))
{
	struct timer **at = &timers;
	u64 now = now_ms();
	timer_clear(timer);
	timer->at = milliseconds > UINT64_MAX - now ? UINT64_MAX : now + milliseconds;
	timer->fire = fire;
	timer->set = true;
	while (*at && (*at)->at <= timer->at)
		at = &(*at)->next;
	timer->next = *at;
	*at = timer;
}

static void fire_timers(void)
{
	if (!timers)
		return;
	u64 now = now_ms();
	while (timers && timers->at <= now) {
		struct timer *due = timers;
		timer_clear(due);
		due->fire(due);
	}
}

void child_add(struct child *child, pid_t pid, void (*ended)(struct child *, int))
{
	*child = (struct child){.pid = pid, .ended = ended, .next = children};
	children = child;
}

void child_remove(struct child *child)
{
	for (struct child **at = &children; *at; at = &(*at)->next)
		if (*at == child) {
			*at = child->next;
			return;
		}
}

bool child_known(pid_t pid)
{
	for (struct child *child = children; child; child = child->next)
		if (child->pid == pid)
			return true;
	return false;
}

void children_reap(void)
{
	struct usage usage;
	int status;
	pid_t pid;
	while ((pid = wait4(-1, &status, WNOHANG, &usage.rusage)) > 0) {
		if (WIFSTOPPED(status)) /* it asked to be traced: it lives */
			continue;
		struct child *child = children;
		while (child && child->pid != pid)
			child = child->next;
		if (child) {
			child_remove(child);
			child->ended(child, status);
		} else {
			exec_orphan_ended(pid, status, &usage);
		}
	}
}

static void signal_ready(struct watch *watch, u32 events)
{
	struct signalfd_siginfo info[8];
	ssize_t got;
	bool reap = false;
	(void)events;
	while ((got = read(watch->fd, info, sizeof info)) > 0)
		for (size_t i = 0; i < (size_t)got / sizeof *info; i++) {
			if (info[i].ssi_signo == SIGCHLD)
				reap = true;
			else if (info[i].ssi_pid == 0 && info[i].ssi_code == SI_USER) /* not SIGIO's, which has no sender */
				life_shutdown();
		}
	if (reap)
		children_reap();
}

static void nothing(int number) { (void)number; }

/* What whoever started the guest ignored is not ignored here, nor in a command: the kernel's
   call, since the library keeps 32 to 34 to itself. A zeroed action is SIG_DFL. */
static void signals_default(void)
{
	static const unsigned long action[4];
	for (int number = 1; number <= 64; number++)
		syscall(SYS_rt_sigaction, number, action, NULL, 8);
}

int loop_start(void)
{
	sigset_t mask;
	struct sigaction action = {.sa_handler = nothing};
	signals_default();
	/* A handler, unlike SIG_IGN, does not outlive execve. */
	sigaction(SIGPIPE, &action, NULL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (epoll_fd < 0 || fd < 0)
		return -errno;
	return watch_add(&signals, fd, EPOLLIN, signal_ready);
}

void when_idle(void (*work)(void))
{
	for (int i = 0; i < idle_count; i++)
		if (idle_works[i] == work)
			return;
	if (idle_count < IDLE_WORKS)
		idle_works[idle_count++] = work;
}

static int wait_ms(void)
{
	if (idle_count)
		return 0;
	if (!timers)
		return LONGEST_WAIT_MS;
	u64 now = now_ms();
	u64 left = timers->at > now ? timers->at - now : 0;
	return left > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : (int)left;
}

void loop_turn(int milliseconds)
{
	batch_size = epoll_wait(epoll_fd, batch, BATCH, milliseconds);
	for (int i = 0; i < batch_size; i++) {
		struct watch *watch = batch[i].data.ptr;
		if (watch)
			watch->ready(watch, batch[i].events);
	}
	if (batch_size <= 0 && idle_count) {
		idle_count--;
		idle_works[idle_count]();
	}
	batch_size = 0;
	fire_timers();
	conn_turn(the_conn);
}

int loop_run(void)
{
	running = true;
	while (running)
		loop_turn(wait_ms());
	return exit_status;
}

void loop_stop(int status)
{
	running = false;
	exit_status = status;
}
