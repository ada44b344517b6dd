/* Feeds mutated frames to the agent's loop: agent_fuzz CORPUS DIRECTORY SEED COUNT
 *
 * All of the agent is linked, its supervisors are played here (the linker's --wrap): no command ever runs. The process
 * enters DIRECTORY (chroot) and an empty network as an ordinary user first, so that it reaches nothing else. DIRECTORY/input always
 * holds the bytes at work, for the time after a crash. The same SEED gives the same inputs.
 */
#include "exec.h"

#undef main  /* the agent's own has another name here */

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUT_BYTES = 64 * 1024, SEEDS = 256, NOBODY = 65534, FRAMES_AT_ONCE = 6, HEAD = 9, FORKS_APART = 16 };

struct seed {
	u8 data[4096];
	size_t size;
};

static struct seed seeds[SEEDS];
static size_t seed_count;
static u64 state;
static u8 *input;
static size_t input_size;
static int host;
static u64 answered;
static const u8 marker[MARKER_BYTES] = "fuzz-the-marker";
static const struct options options = {.marker = "fuzz-the-marker", .has_marker = true, .lease_ms = 1u << 31};

/* ---- supervisors that do nothing but answer ---- */

struct played {
	struct supervisor supervisor;
	struct told told;
};

int __wrap_job_give(struct exec *exec, const struct job *job, const char *strings, const int *fds, int count)
{
	const char *at = strings;
	struct played *played = calloc(1, sizeof *played);
	(void)fds;
	for (u32 i = 0; i < 1 + job->args_count + job->env_count; i++)
		at += strlen(at) + 1;
	if (!played || at != strings + job->strings || count < 1 || count > 3)
		abort();
	played->supervisor.theirs = -1;
	played->supervisor.told = &played->told;
	exec->supervisor = &played->supervisor;
	return 0;
}

void __wrap_supervisor_tell(struct supervisor *supervisor, u32 kind, u32 number, bool flag)
{
	(void)supervisor;
	(void)kind;
	(void)number;
	(void)flag;
}

void __wrap_supervisor_free(struct supervisor *supervisor) { free(supervisor); }
void __wrap_supervisor_dismiss(struct supervisor *supervisor) { (void)supervisor; }
void __wrap_supervisors_renew(void) {}
void __wrap_pool_refill(void) {}

/* A worker costs more than all else here, so most are refused, as where the limit of processes is reached. */
pid_t __real_fork(void);
pid_t __wrap_fork(void)
{
	static u32 asked;
	if (asked++ % FORKS_APART == 0)
		return __real_fork();
	errno = EAGAIN;
	return -1;
}

/* ---- random numbers, the corpus ---- */

static u64 next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static u32 below(u32 limit) { return (u32)(next() >> 16) % limit; }

static void load(const char *directory)
{
	DIR *list = opendir(directory);
	struct dirent *entry;
	while (list && seed_count < SEEDS && (entry = readdir(list))) {
		char path[4096];
		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
		if (!file)
			continue;
		seeds[seed_count].size = fread(seeds[seed_count].data, 1, sizeof seeds->data, file);
		seed_count += seeds[seed_count].size >= HEAD;
		fclose(file);
	}
	if (!seed_count) {
		fprintf(stderr, "agent_fuzz: no corpus in %s\n", directory);
		exit(2);
	}
}

/* ---- inputs ---- */

static void put_le(u8 *at, u32 value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (u8)(value >> (8 * i));
}

static void mutate(u8 *data, size_t *size)
{
	static const u32 edges[] = {0, 1, 2, 4, 255, 256, 65535, 65536, 1u << 20, 1u << 22, 1u << 31, ~0u - 1, ~0u};
	size_t at = below((u32)*size);
	switch (below(6)) {
	case 0:
		data[at] ^= (u8)(1u << below(8));
		break;
	case 1:
		data[at] = (u8)next();
		break;
	case 2:
		if (at + 4 <= *size)
			put_le(data + at, edges[below(sizeof edges / sizeof *edges)]);
		break;
	case 3:
		*size = HEAD > at ? HEAD : at;
		break;
	case 4:
		if (*size + 16 < sizeof seeds->data) {
			memmove(data + at + 8, data + at, *size - at);
			*size += 8;
		}
		break;
	default: {
		const struct seed *other = &seeds[below((u32)seed_count)];
		size_t from = below((u32)other->size), count = other->size - from;
		if (count > sizeof seeds->data - at)
			count = sizeof seeds->data - at;
		memcpy(data + at, other->data + from, count);
		*size = at + count > HEAD ? at + count : HEAD;
	}
	}
}

static void add_frame(void)
{
	const struct seed *seed = &seeds[below((u32)seed_count)];
	u8 data[sizeof seed->data];
	size_t size = seed->size;
	memcpy(data, seed->data, size);
	for (u32 i = below(4); i; i--)
		mutate(data, &size);
	if (data[4] == OP_SHUTDOWN || data[4] == OP_HELLO)
		data[4] = (u8)next();
	if (below(20)) {
		put_le(data, (u32)size - 4);
		put_le(data + 5, below(20) ? below(5) : (u32)next());
	}
	if (input_size + size <= INPUT_BYTES) {
		memcpy(input + input_size, data, size);
		input_size += size;
	}
}

static void add_hello(void)
{
	u8 hello[HEAD + 4 + 2 * MARKER_BYTES + 4 + 8 + 1] = {0};
	put_le(hello, sizeof hello - 4);
	hello[4] = OP_HELLO;
	put_le(hello + HEAD, PROTOCOL_VERSION);
	memcpy(hello + HEAD + 4 + MARKER_BYTES, marker, MARKER_BYTES);
	put_le(hello + HEAD + 4 + 2 * MARKER_BYTES, 1u << 30);
	put_le(hello + HEAD + 8 + 2 * MARKER_BYTES, 1u << 30);
	hello[sizeof hello - 1] = 1;
	memcpy(input + input_size, marker, MARKER_BYTES);
	memcpy(input + input_size + MARKER_BYTES, hello, sizeof hello);
	input_size += MARKER_BYTES + sizeof hello;
}

static void make_input(void)
{
	input_size = 0;
	add_hello();
	for (u32 i = 1 + below(FRAMES_AT_ONCE); i; i--)
		add_frame();
}

/* ---- one turn ---- */

static void read_answers(void)
{
	static u8 answers[1 << 20];
	ssize_t got;
	while ((got = recv(host, answers, sizeof answers, MSG_DONTWAIT)) > 0)
		answered += (u64)got;
}

/* It may have known more than it came to report. */
static void end_supervisor(struct exec *exec)
{
	struct supervisor *supervisor = exec->supervisor;
	struct told *told = supervisor->told;
	told->begun = exec->started || below(2);
	if (told->begun && (exec->started || below(2)))
		told->report.pid = 7;
	told->report.ended = exec->main_ended || (told->report.pid && below(2));
	exec_supervisor_ended(exec, told, exec->main_ended);
	free(supervisor);
}

static void fail_to_start(struct exec *exec)
{
	struct report report = {.kinds = REPORT_FAILED, .error = ENOENT, .stage = STAGE_EXEC};
	struct supervisor *supervisor = exec->supervisor;
	exec_reported(exec, &report);
	free(supervisor);
}

static void play_supervisor(struct exec *exec)
{
	struct report report = {.kinds = REPORT_STARTED, .pid = 7, .proof = PROOF_ECHILD};
	if (!below(24)) {
		end_supervisor(exec);
	} else if (!exec->started && !below(8)) {
		fail_to_start(exec);
	} else if (!exec->started && below(2)) {
		exec_reported(exec, &report);
	} else if (exec->started && !exec->main_ended && !below(3)) {
		report.kinds = exec->killing ? REPORT_EXITED | REPORT_KILLED : REPORT_EXITED;
		report.ended = true;
		report.empty = exec->killing || below(2);
		report.free = report.empty && below(2);
		exec_reported(exec, &report);
	} else if (exec->main_ended && exec->killing && !exec->killed && !below(3)) {
		report.kinds = REPORT_HEARD | REPORT_KILLED;
		exec_reported(exec, &report);
	}
}

static void play_supervisors(void)
{
	for (struct exec *exec = execs, *after; exec; exec = after) {
		after = exec->next;
		if (exec->supervisor)
			play_supervisor(exec);
	}
}

/* One that is over and has neither a holder nor a supervisor is of no use to anybody. */
static void check_execs(void)
{
	for (const struct exec *exec = execs; exec; exec = exec->next)
		if (exec->over && exec->removed && !exec->supervisor)
			abort();
}

static void forget_execs(void)
{
	while (execs) {
		struct supervisor *supervisor = execs->supervisor;
		exec_free(execs);
		free(supervisor);
	}
}

static void run_one(void)
{
	size_t sent = 0;
	while (sent < input_size) {
		ssize_t wrote = send(host, input + sent, input_size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (wrote > 0)
			sent += (size_t)wrote;
		loop_turn(0);
		play_supervisors();
		read_answers();
	}
	loop_turn(0);
	play_supervisors();
	read_answers();
	conn_end_session(the_conn);
	check_execs();
	if (!below(4))  /* else what is held goes on in the next session */
		forget_execs();
}

/* An empty network has its loopback interface down. */
static bool loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
	close(fd);
	return up;
}

static void confine(const char *directory)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/input", directory);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, INPUT_BYTES) || unshare(CLONE_NEWNET) || !loopback_up() || chdir(directory) || chroot("."))
		exit(2);
	input = mmap(NULL, INPUT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (input == MAP_FAILED || setgid(NOBODY) || setuid(NOBODY))
		exit(2);
}

int main(int count, char **args)
{
	int pair[2];
	if (count != 5)
		return 2;
	u64 seed = strtoull(args[3], NULL, 10), rounds = strtoull(args[4], NULL, 10);
	load(args[1]);
	confine(args[2]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 2;
	host = pair[0];
	dup2(pair[1], 0);
	dup2(pair[1], 1);
	close(pair[1]);
	dispatch_start();
	if (loop_start() || (filter_start && filter_start()) || forward_start())
		return 2;
	identity_start(65501);
	life_start(&options);
	conn_start(&options);
	for (u64 i = 0; i < rounds; i++) {
		state = (seed + i) * 0x9e3779b97f4a7c15u + 1;
		make_input();
		run_one();
	}
	fprintf(stderr, "%llu inputs, %llu bytes of answers\n", (unsigned long long)rounds, (unsigned long long)answered);
	return 0;
}
