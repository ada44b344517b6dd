/* What the parts of the keeper share; keep.c tells what a keeper is. */
#ifndef KEEP_H
#define KEEP_H

#include "agent.h"

enum { NOT_STARTED = 125, STEPS_CAP = 64, STAT_BYTES = 512 };

struct step {
	const char *path, *value;
};
struct steps {
	struct step list[STEPS_CAP];
	int count;
};
struct keeping {
	struct steps made, inside, thaws;
	const char *directory, *into, *counter, *passed, *last, *user;
	bool attached, begin;
	bool killing;
	int home;  /* DIRECTORY */
	pid_t program;
};

extern struct keeping keeping;

/* ---- keep.c ------------------------------------------------------------------------------------------------------ */

int complain(const char *what, const char *name, int error);
/* In the keeper's child: complain of errno, and end. */
_Noreturn void give_up(const char *what, const char *name);
int write_file(const char *path, const char *value);

/* ---- keep_start.c ------------------------------------------------------------------------------------------------ */

/* A fork that becomes PROGRAM, in its place; negative after a complaint. */
pid_t start_program(char **args);

/* ---- keep_root.c ------------------------------------------------------------------------------------------------- */

/* Where the sandbox has what is Ringfence's own. */
#define OWN_PLACE "/.ringfence"
#define SANDBOX_NAME "sandbox"

/* Whether a part is a bind of what is not Ringfence's own, such as a repository. */
bool binds_of_others(char **parts);
/* Become PROGRAM with a root as the parts say, in namespaces that are new but for the cgroup's. */
_Noreturn void begin(char **parts);

/* ---- keep_user.c ------------------------------------------------------------------------------------------------- */

/* Who starts the sandbox: to be called before there is a user namespace. */
void user_remember(void);
/* In the outer one, as this process was born into it: be its root. */
void user_outer(void);
/* Enter the inner one, as "UID:GID"; /proc is of the sandbox's processes. */
void user_inner(const char *ids);

/* ---- keep_kill.c ------------------------------------------------------------------------------------------------- */

/* Kill the first process of the sandbox, with which the kernel kills all of it; PROGRAM ends then. */
void kill_sandbox(void);
/* Kill what was left to us when PROGRAM died before its child: we are its subreaper. */
void kill_children(void);

/* ---- keep_clear.c ------------------------------------------------------------------------------------------------ */

/* Remove the cgroups that were made, DIRECTORY, and what it is in when it was the last there. */
void clear_away(const char *directory);

#endif
