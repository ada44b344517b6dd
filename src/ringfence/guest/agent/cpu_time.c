/* CPU_TIME: how much processor time the sandbox may use, by its cgroup's counter, which the host opened. Whoever holds
 * the sandbox looks at it, too; the guest does for one that nobody may hold. */
#include "core.h"
#include "exec.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHORTEST_LOOK_MS = 100, LEFT_TO_THE_HOST_MS = 600000, COUNTER_BYTES = 512 };

static int counter = -1;
static u64 limit_us;
static u32 cores;
static bool spent;
static struct timer look;

bool cpu_time_spent(void) { return spent; }

/* cpu.stat of version 2, or version 1's cpuacct.usage: a number of nanoseconds. UINT64_MAX where it cannot be read. */
static u64 used_us(int fd)
{
	static const char version_2[] = "usage_usec ";
	char text[COUNTER_BYTES];
	ssize_t size = pread(fd, text, sizeof text - 1, 0);
	if (size <= 0)
		return UINT64_MAX;
	text[size] = 0;
	if (!strncmp(text, version_2, strlen(version_2)))
		return strtoull(text + strlen(version_2), NULL, 10);
	return *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) / 1000 : UINT64_MAX;
}

static void nobody_came(struct timer *timer)
{
	(void)timer;
	life_shutdown();
}

/* All that runs is dead at once. The guest itself stays a while, so that the host finds by the same counter why. */
static void end_all(void)
{
	spent = true;
	if (getpid() != 1) {
		life_shutdown();
		return;
	}
	for (struct exec *exec = execs; exec; exec = exec->next)
		if (!exec->main_ended && !exec->reason)
			exec->reason = REASON_CPU_TIME;
	kill(-1, SIGKILL);
	timer_set(&look, LEFT_TO_THE_HOST_MS, nobody_came);
}

static void look_again(struct timer *timer)
{
	u64 used = used_us(counter);
	if (used == UINT64_MAX) {
		life_shutdown();
		return;
	}
	if (used >= limit_us) {
		end_all();
		return;
	}
	u64 soonest = (limit_us - used) / 1000 / cores;
	timer_set(timer, soonest > SHORTEST_LOOK_MS ? soonest : SHORTEST_LOOK_MS, look_again);
}

int op_cpu_time(struct conn *conn, u32 id, struct reader *r)
{
	u64 wanted_limit = read_u64(r);
	u32 wanted_cores = read_u32(r);
	int fd, error = descriptors_take(&fd, 1);
	if (error)
		return error;
	if (!read_end(r) || !wanted_cores || spent || used_us(fd) == UINT64_MAX) {
		close(fd);
		return -EINVAL;
	}
	if (counter >= 0)
		close(counter);
	counter = fd;
	limit_us = wanted_limit;
	cores = wanted_cores;
	send_done(conn, id);
	look_again(&look);
	return 0;
}
