/* ringfence-guest: the first process of a sandbox. */
#include "agent.h"
#include "core.h"
#include "supervisor.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EXIT_USAGE = 64, FIRST_LEASE_MS = 60000, RESERVED_UID = 65501, LONGEST_DIRECTORY = 80 };

static const char usage[] =
	"usage: ringfence-guest [--socket DIRECTORY [--connected DESCRIPTOR] | --stream] [--marker HEX] [--reserved-uid N] [--lease MS] [--root-capabilities HEX]"
	" [--pidns] [--writable DIRECTORY]...\n";

static u64 known_features = FEATURE_ATTACH_STDIN | FEATURE_TELL_START | FEATURE_SPACE;

u64 features(void) { return known_features; }

static void probe_features(const struct options *options)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (fd >= 0) {
		known_features |= FEATURE_PIDFD;
		close(fd);
	}
	if (have_subreaper())
		known_features |= FEATURE_SUBREAPER;
	if (access("/dev/ptmx", R_OK | W_OK) == 0)
		known_features |= FEATURE_PTY;
	if (can_switch)
		known_features |= FEATURE_SETFSUID;
	if (oom_kills() != UINT64_MAX)
		known_features |= FEATURE_OOM_COUNTER;
	if (watch_features)
		known_features |= watch_features();
	if (forward_start)
		known_features |= FEATURE_FORWARD;
	if (filter_start)
		known_features |= FEATURE_FILTER;
	if (options->socket_directory)
		known_features |= FEATURE_DESCRIPTORS;
}

/* Overwritten, since commands can read how the first process was started. */
static bool parse_marker(char *text, struct options *options)
{
	if (strlen(text) != 2 * MARKER_BYTES || strspn(text, "0123456789abcdef") != 2 * MARKER_BYTES)
		return false;
	for (int i = 0; i < MARKER_BYTES; i++) {
		char digits[3] = {text[2 * i], text[2 * i + 1], 0};
		options->marker[i] = (u8)strtoul(digits, NULL, 16);
	}
	options->has_marker = true;
	memset(text, '0', 2 * MARKER_BYTES);
	return true;
}

static bool parse_number(const char *text, u32 *value, u32 most)
{
	char *end;
	unsigned long parsed = strtoul(text, &end, 10);
	*value = (u32)parsed;
	return *text && !*end && parsed > 0 && parsed <= most;
}

static bool parse_mask(const char *text, u32 *mask)
{
	char *end;
	unsigned long parsed = strtoul(text, &end, 16);
	*mask = (u32)parsed;
	return *text && !*end && parsed <= UINT32_MAX;
}

/* A tmpfs has the mode of the image's directory below it under some runtimes; while root, the guest may mend that. */
static int open_to_all(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0) {
		(void)!fchmod(fd, 01777);
		close(fd);
	}
	return 2;
}

/* How many arguments it used, 0 when it is unknown or wrong. */
static int parse_option(const char *name, char *value, struct options *options, u32 *uid)
{
	if (!strcmp(name, "--stream"))
		return 1;
	if (!strcmp(name, "--pidns"))
		return own_pid_namespace = true;
	if (value && !strcmp(name, "--socket") && *value == '/' && strlen(value) <= LONGEST_DIRECTORY) {
		options->socket_directory = value;
		return 2;
	}
	if (value && !strcmp(name, "--connected"))
		return parse_number(value, &options->connected, INT32_MAX) ? 2 : 0;
	if (value && !strcmp(name, "--marker"))
		return parse_marker(value, options) ? 2 : 0;
	if (value && !strcmp(name, "--reserved-uid"))
		return parse_number(value, uid, 65533) ? 2 : 0;
	if (value && !strcmp(name, "--root-capabilities"))
		return parse_mask(value, &root_capabilities) ? 2 : 0;
	if (value && !strcmp(name, "--lease"))
		return parse_number(value, &options->lease_ms, UINT32_MAX) ? 2 : 0;
	if (value && !strcmp(name, "--writable") && *value == '/')
		return open_to_all(value);
	int used = forward_option ? forward_option(name, value) : 0;
	return used > 0 ? used : 0;
}

static bool parse(int count, char **args, struct options *options, u32 *uid)
{
	for (int i = 1; i < count;) {
		int used = parse_option(args[i], i + 1 < count ? args[i + 1] : NULL, options, uid);
		if (!used)
			return false;
		i += used;
	}
	return true;
}

int main(int count, char **args)
{
	struct options options = {.lease_ms = FIRST_LEASE_MS};
	u32 uid = RESERVED_UID;
	if (count > 1 && !strcmp(args[1], "--keep"))
		return keep_main(count - 2, args + 2);
	if (count > 1 && !strcmp(args[1], "--show"))
		return show_main(count - 2, args + 2);
	if (count > 1 && !strcmp(args[1], "--list"))
		return list_main(count - 2, args + 2);
	if (count > 1 && !strcmp(args[1], "--bind"))
		return bind_main(count - 2, args + 2);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (count > 1 && !strcmp(args[1], "--enter")) {
		args += 2;
		count = enter(count - 2, &args);
	}
	if (!parse(count, args, &options, &uid)) {
		if (write(2, usage, sizeof usage - 1) < 0)
			return 1;
		return EXIT_USAGE;
	}
	umask(022);
	open_files_raise();
	dispatch_start();
	oom_start();
	if (loop_start() || (filter_start && filter_start()) || (forward_start && forward_start()))
		return 1;
	identity_start(uid);
	probe_features(&options);
	life_start(&options);
	conn_start(&options);
	exec_start();
	return loop_run();
}
