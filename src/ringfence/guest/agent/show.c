/* --show: what a command sees of its own confinement, for the receipt. Runs as a command, with nothing of the agent's.
 *
 * Records "name length\n", that many bytes, "\n". An argument that begins with '/' is a path to probe, "=/path" a file
 * to copy out. A file that cannot be read has no record.
 */
#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_BYTES = 128 * 1024, TEXT_BYTES = 8192, FAMILY_VSOCK = 40 };

static const char *const files[] = {
	"/proc/self/status", "/proc/self/mountinfo", "/proc/self/limits", "/proc/self/net/dev", "/proc/self/oom_score_adj",
	"/proc/self/attr/current", "/proc/self/uid_map",
	"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
	"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
	"/sys/fs/cgroup/cpu/cpu.shares", "/sys/fs/cgroup/cpuset/cpuset.cpus",
	"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cpu.max",
	"/sys/fs/cgroup/cpu.weight", "/sys/fs/cgroup/cpuset.cpus",
};
static const char *const namespaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};

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

static void show_file(const char *path)
{
	static char data[FILE_BYTES];
	size_t size = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	while (size < sizeof data && (got = read(fd, data + size, sizeof data - size)) > 0)
		size += (size_t)got;
	close(fd);
	record("file:", path, data, size);
}

static void show_namespace(const char *name)
{
	char path[64], target[64];
	snprintf(path, sizeof path, "/proc/self/ns/%s", name);
	ssize_t size = readlink(path, target, sizeof target);
	if (size > 0)
		record("namespace:", name, target, (size_t)size);
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

/* "errno of open, whether it holds anything, whether its mount is read-only, bytes of its file system" */
static void show_path(const char *path)
{
	char text[96], byte[TEXT_BYTES];
	struct stat status;
	struct statvfs place;
	bool read_only = false, holds = false;
	unsigned long long bytes = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = fd < 0 ? errno : 0;
	if (fd >= 0 && fstat(fd, &status) == 0)
		holds = S_ISDIR(status.st_mode) ? names_in(path, byte, sizeof byte) > 0 : read(fd, byte, 1) > 0;
	if (fd >= 0)
		close(fd);
	if (statvfs(path, &place) == 0) {
		read_only = place.f_flag & ST_RDONLY;
		bytes = (unsigned long long)place.f_blocks * place.f_frsize;
	}
	int size = snprintf(text, sizeof text, "%d %d %d %llu", error, holds, read_only, bytes);
	record("path:", path, text, (size_t)size);
}

int show_main(int count, char **args)
{
	static char names[TEXT_BYTES];
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		show_file(files[i]);
	for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++)
		show_namespace(namespaces[i]);
	record("devices", "", names, names_in("/dev", names, sizeof names));
	for (int i = 0; i < count; i++) {
		if (args[i][0] == '/')
			show_path(args[i]);
		else if (args[i][0] == '=')
			show_file(args[i] + 1);
	}
	show_probes();
	return fflush(stdout) ? 1 : 0;
}
