/* The directories that a WATCH watches: one table, in the worker. */
#ifndef RINGFENCE_WATCHED_H
#define RINGFENCE_WATCHED_H

#include "agent.h"

struct watched {
	int wd;
	char *path;  /* relative to the root; NULL when it is not watched any more */
};
struct watched *watched_find(int wd);
int watched_remember(int wd, const char *path);
void watched_ignore(struct watched *watched);
/* Forget what is ignored, once that is most of all. No pointer into the table stays good. */
void watched_compact(void);
/* A directory left the tree: it and what is below it are not watched under their old paths any more. */
void watched_drop(int inotify, const char *path);

#endif
