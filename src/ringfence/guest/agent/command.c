/* From a supervisor to a command: cgroups, limits, terminal, identity, directory, filter, execve. */
#include "agent.h"
#include "core.h"
#include "supervisor.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024, PATH_BYTES = 4096 };

static struct rlimit files_given;

void open_files_raise(void)
{
	if (getrlimit(RLIMIT_NOFILE, &files_given))
		return;
	struct rlimit most = {files_given.rlim_max, files_given.rlim_max};
	setrlimit(RLIMIT_NOFILE, &most);
}

int open_files_restore(void)
{
	return files_given.rlim_max ? setrlimit(RLIMIT_NOFILE, &files_given) : 0;
}

/* A "0" moves who writes it, with all that it forks later. The command has none of these descriptors. */
static int join_cgroups(const struct command *command)
{
	for (int i = 0; i < command->cgroups_count; i++) {
		if (write(command->cgroups[i], "0", 1) != 1)
			return errno;
		close(command->cgroups[i]);
	}
	return 0;
}

static int set_limits(const struct job *job)
{
	if (open_files_restore() < 0)
		return errno;
	for (u32 i = 0; i < job->limit_count; i++) {
		const struct limit *limit = &job->limits[i];
		u64 values[2] = {limit->soft, limit->hard};
		if (syscall(SYS_prlimit64, 0, limit->resource, values, NULL))
			return errno;
	}
	return 0;
}

static int set_terminal(const struct command *command)
{
	setsid();
	if (command->job->flags & FLAG_PTY && ioctl(command->fds[0], TIOCSCTTY, 0))
		return errno;
	for (int i = 0; i < 3; i++)
		if (dup2(command->fds[i], i) < 0)
			return errno;
	return 0;
}

static int set_user(const struct cred *cred)
{
	if (!can_switch) {
		bool itself = cred->uid == geteuid() && cred->gid == getegid() && !cred->count;
		return itself ? -set_capabilities(0, 0) : EPERM;
	}
	if (syscall(SYS_setgroups, cred->count, cred->groups) ||
	    syscall(SYS_setresgid, cred->gid, cred->gid, cred->gid) ||
	    syscall(SYS_setresuid, cred->uid, cred->uid, cred->uid))
		return errno;
	/* Before the capabilities go, without which that user could trace it: its memory is the supervisor's. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return -set_capabilities(capabilities_of(cred->uid), capabilities_of(cred->uid));
}

static const char *variable(char *const *env, const char *name)
{
	size_t size = strlen(name);
	for (; *env; env++)
		if (!strncmp(*env, name, size) && (*env)[size] == '=')
			return *env + size + 1;
	return NULL;
}

static int execute_on_path(const struct command *command)
{
	const char *path = variable(command->env, "PATH"), *name = command->args[0];
	size_t name_size = strlen(name);
	char place[PATH_BYTES];
	int error = ENOENT;
	if (!path)
		path = "/usr/local/bin:/usr/bin:/bin";
	for (;;) {
		size_t size = strcspn(path, ":");
		if (size && size + name_size + 2 <= sizeof place) {
			memcpy(place, path, size);
			place[size] = '/';
			memcpy(place + size + 1, name, name_size + 1);
			execve(place, command->args, command->env);
			if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
				return errno;
			if (errno == EACCES)
				error = EACCES;
		}
		if (!path[size])
			return error;
		path += size + 1;
	}
}

static int execute(const struct command *command)
{
	if (strchr(command->args[0], '/')) {
		execve(command->args[0], command->args, command->env);
		return errno;
	}
	if (command->job->flags & FLAG_SEARCH_PATH && command->args[0][0])
		return execute_on_path(command);
	return ENOENT;
}

static int reset_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) ? errno : 0;
}

/* Runs in the new process on memory shared with the supervisor, which waits. Returns only when it failed. */
static int become(void *argument)
{
	struct command *command = argument;
	const struct job *job = command->job;
	command->stage = STAGE_CGROUP;
	if ((command->error = join_cgroups(command)))
		return 0;
	command->stage = STAGE_LIMITS;
	if ((command->error = set_limits(job)))
		return 0;
	command->stage = STAGE_PTY;
	if ((command->error = set_terminal(command)))
		return 0;
	command->stage = STAGE_USER;
	if ((command->error = set_user(&job->cred)))
		return 0;
	command->stage = STAGE_CWD;
	if (chdir(command->cwd)) {
		command->error = errno;
		return 0;
	}
	command->stage = STAGE_EXEC;
	if (!command->filtered && seccomp_apply && (command->error = -seccomp_apply()))
		return 0;
	if ((command->error = reset_signals()))
		return 0;
	command->error = execute(command);
	return 0;
}

static int run_and_exit(void *argument)
{
	become(argument);
	syscall(SYS_exit, 127);
	return 0;
}

pid_t command_start(struct command *command)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	command->error = command->stage = 0;
	pid_t pid = clone(run_and_exit, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, command);
	if (pid < 0) {
		command->stage = STAGE_LIMITS;
		return -errno;
	}
	return command->error ? -command->error : pid;
}
