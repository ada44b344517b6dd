/* --show: what a command sees of its own confinement, for the receipt. Runs as a command, with nothing of the agent's.
 *
 * Records "name length\n", that many bytes, "\n". An argument that begins with '/' is a path to probe, "=/path" a file
 * to copy out. A file that cannot be read has no record. FILE_BYTES is what the host keeps of all output: where a file
 * is longer, it knows that it has not seen all.
 */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_BYTES = 1024 * 1024, TEXT_BYTES = 8192, ENTRIES_BYTES = 512, OUTPUT_BYTES = 32 * 1024, FAMILY_VSOCK = 40 };

static const char *const own_files[] = {
	"status", "mountinfo", "limits", "net/dev", "oom_score_adj", "attr/current", "uid_map",
};
static const char *const files[] = {
	"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
	"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
	"/sys/fs/cgroup/cpu/cpu.shares", "/sys/fs/cgroup/cpuset/cpuset.cpus",
	"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cpu.max",
	"/sys/fs/cgroup/cpu.weight", "/sys/fs/cgroup/cpuset.cpus",
};
static const char *const namespaces[] = {
	"ns/cgroup", "ns/ipc", "ns/mnt", "ns/net", "ns/pid", "ns/user", "ns/uts",
};

/* Called with arguments that make no sense, so that a kernel that lets them through refuses them for another reason. */
static const struct {
	const char *name;
	long number;
} probes[] = {
	{"clone3", SYS_clone3}, {"io_uring_setup", SYS_io_uring_setup}, {"keyctl", SYS_keyctl},
	{"name_to_handle_at", SYS_name_to_handle_at}, {"process_vm_readv", SYS_process_vm_readv},
};

static void record(const char *kind, const char *name, const char *data, size_t size)
{
	printf("%s%s %zu\n", kind, name, size);
	fwrite(data, 1, size, stdout);
	putchar('\n');
}

static char *data; /* of a file: not static memory, which every other process of the agent would have, too */

static void show_file(int at, const char *path, const char *prefix)
{
	size_t size = 0;
	ssize_t got;
	int fd = openat(at, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	while (size < FILE_BYTES && (got = read(fd, data + size, FILE_BYTES - size)) > 0)
		size += (size_t)got;
	close(fd);
	record(prefix, path, data, size);
}

static void show_namespace(int at, const char *path)
{
	char target[64];
	ssize_t size = readlinkat(at, path, target, sizeof target);
	if (size > 0)
		record("namespace:", strchr(path, '/') + 1, target, (size_t)size);
}

/* Each path that begins at /proc/self would have the kernel look for the process anew. */
static void show_own(void)
{
	int self = open("/proc/self", O_PATH | O_CLOEXEC);
	for (size_t i = 0; i < sizeof own_files / sizeof *own_files; i++)
		show_file(self, own_files[i], "file:/proc/self/");
	for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++)
		show_namespace(self, namespaces[i]);
	close(self);
}

static void show_probe(const char *name, long result)
{
	char text[16];
	int size = snprintf(text, sizeof text, "%d", result < 0 ? errno : 0);
	record("probe:", name, text, (size_t)size);
}

static void show_probes(void)
{
	for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
		show_probe(probes[i].name, syscall(probes[i].number, -1L, -1L, -1L, -1L, -1L, -1L));
	show_probe("vsock", socket(FAMILY_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

/* Names in a directory, at most what fits. */
static size_t names_in(const char *path, char *text, size_t room)
{
	size_t size = 0;
	DIR *directory = opendir(path);
	struct dirent *entry;
	while (directory && (entry = readdir(directory))) {
		size_t length = strlen(entry->d_name);
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && size + length + 1 <= room) {
			memcpy(text + size, entry->d_name, length);
			text[size + length] = '\n';
			size += length + 1;
		}
	}
	if (directory)
		closedir(directory);
	return size;
}

/* Whether an open directory has an entry. */
static bool has_entry(int fd)
{
	char entries[ENTRIES_BYTES] __attribute__((aligned(8)));
	long size;
	while ((size = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < size;) {
			const struct dirent *entry = (const struct dirent *)(entries + at);
			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
				return true;
			at += entry->d_reclen;
		}
	return false;
}

static bool holds_anything(int fd)
{
	char byte;
	ssize_t got = read(fd, &byte, 1);
	return got > 0 || (got < 0 && errno == EISDIR && has_entry(fd));
}

/* "errno of open, whether it holds anything, whether its mount is read-only, bytes of its file system" */
static void show_path(const char *path)
{
	char text[96];
	struct statvfs place = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = fd < 0 ? errno : 0;
	bool holds = fd >= 0 && holds_anything(fd);
	int unknown = fd >= 0 ? fstatvfs(fd, &place) : error == ENOENT ? -1 : statvfs(path, &place);
	bool read_only = !unknown && place.f_flag & ST_RDONLY;
	unsigned long long bytes = unknown ? 0 : (unsigned long long)place.f_blocks * place.f_frsize;
	if (fd >= 0)
		close(fd);
	int size = snprintf(text, sizeof text, "%d %d %d %llu", error, holds, read_only, bytes);
	record("path:", path, text, (size_t)size);
}

int show_main(int count, char **args)
{
	static char names[TEXT_BYTES], output[OUTPUT_BYTES]; /* each write wakes the agent */
	setvbuf(stdout, output, _IOFBF, sizeof output);
	if (!(data = malloc(FILE_BYTES)))
		return 1;
	show_own();
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		show_file(AT_FDCWD, files[i], "file:");
	record("devices", "", names, names_in("/dev", names, sizeof names));
	for (int i = 0; i < count; i++) {
		if (args[i][0] == '/')
			show_path(args[i]);
		else if (args[i][0] == '=')
			show_file(AT_FDCWD, args[i] + 1, "file:");
	}
	show_probes();
	return fflush(stdout) ? 1 : 0;
}
