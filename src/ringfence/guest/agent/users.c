/* USER: the sandbox's own /etc/passwd and /etc/group. Both are files of the sandbox and may hold anything. */
#include "agent.h"
#include "core.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_CAP = 4 * 1024 * 1024, FIELDS = 7, STAGE_OF_USER = 2, TEXTS_CAP = 64 * 1024 };

struct user {
	u32 uid, gid;
	const char *name, *home, *shell;
};

/* A whole regular file, NUL-terminated; an empty one when it cannot be read. The caller frees it. */
static char *read_file(const char *path)
{
	struct stat stat;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	size_t size = 0;
	char *text = NULL;
	if (fd >= 0 && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_size < FILE_CAP) {
		size_t room = (size_t)stat.st_size;
		ssize_t got = 1;
		text = malloc(room + 1);
		while (text && size < room && (got = read(fd, text + size, room - size)) > 0)
			size += (size_t)got;
	}
	if (fd >= 0)
		close(fd);
	if (!text)
		text = malloc(1);
	if (!text)
		abort();
	text[size] = 0;
	return text;
}

/* The next line's fields, cut in place; false at the end. Lines with another number of fields are left out. */
static bool next_row(char **at, char *fields[FIELDS], int wanted)
{
	while (**at) {
		char *line = *at;
		size_t size = strcspn(line, "\n");
		*at = line + size + (line[size] == '\n');
		line[size] = 0;
		int count = 0;
		for (char *field = line; field; count++) {
			char *colon = strchr(field, ':');
			if (count < FIELDS)
				fields[count] = field;
			if (colon)
				*colon++ = 0;
			field = colon;
		}
		if (count == wanted)
			return true;
	}
	return false;
}

static bool number(const char *text, u32 *value)
{
	char *end;
	if (*text < '0' || *text > '9')
		return false;
	unsigned long long parsed = strtoull(text, &end, 10);
	*value = (u32)parsed;
	return !*end && parsed < UINT32_MAX;
}

static bool find_user(char *passwd, const char *wanted, struct user *user)
{
	char *fields[FIELDS];
	while (next_row(&passwd, fields, 7)) {
		if (strcmp(fields[0], wanted) && strcmp(fields[2], wanted))
			continue;
		if (!number(fields[2], &user->uid) || !number(fields[3], &user->gid))
			continue;
		if (strlen(fields[0]) + strlen(fields[5]) + strlen(fields[6]) > TEXTS_CAP) /* an answer is one frame */
			continue;
		user->name = fields[0];
		user->home = fields[5];
		user->shell = fields[6];
		return true;
	}
	*user = (struct user){.name = "", .home = "", .shell = ""};
	bool known = number(wanted, &user->uid);
	user->gid = user->uid; /* not 0: what root's group may read is none of its business */
	return known;
}

static bool find_group(char *groups, const char *wanted, u32 *gid)
{
	char *fields[FIELDS];
	while (next_row(&groups, fields, 4))
		if ((!strcmp(fields[0], wanted) || !strcmp(fields[2], wanted)) && number(fields[2], gid))
			return true;
	return number(wanted, gid);
}

static bool is_member(const char *members, const char *name)
{
	size_t size = strlen(name);
	while (size && *members) {
		size_t length = strcspn(members, ",");
		if (length == size && !memcmp(members, name, size))
			return true;
		members += length + (members[length] == ',');
	}
	return false;
}

static u32 find_memberships(char *groups, const char *name, u32 *gids)
{
	char *fields[FIELDS];
	u32 count = 0;
	while (count < GROUPS_CAP && next_row(&groups, fields, 4))
		if (is_member(fields[3], name) && number(fields[2], &gids[count]))
			count++;
	return count;
}

static void send_user(u32 id, const struct user *user)
{
	u32 gids[GROUPS_CAP];
	char *groups = read_file("/etc/group");
	bool only = !can_switch && user->uid == geteuid(); /* the one user there is has the one group there is */
	u32 count = only ? 0 : find_memberships(groups, user->name, gids);
	frame_begin(the_conn, ANSWER_USER, id);
	put_u32(the_conn, user->uid);
	put_u32(the_conn, only ? getegid() : user->gid);
	put_u32(the_conn, count);
	for (u32 i = 0; i < count; i++)
		put_u32(the_conn, gids[i]);
	put_str(the_conn, user->name, strlen(user->name));
	put_str(the_conn, user->home, strlen(user->home));
	put_str(the_conn, user->shell, strlen(user->shell));
	frame_end(the_conn);
	free(groups);
}

int op_user(struct conn *conn, u32 id, struct reader *r)
{
	char text[512];
	struct user user;
	struct bytes asked = read_str(r);
	if (!read_end(r))
		return 0;
	bool fits = copy_str(asked, text, sizeof text);
	char *group = fits ? strchr(text, ':') : NULL;
	if (group)
		*group++ = 0;
	char *passwd = read_file("/etc/passwd"), *groups = read_file("/etc/group");
	bool known = fits && find_user(passwd, *text ? text : "0", &user) &&
		     (!group || !*group || find_group(groups, group, &user.gid));
	if (known)
		send_user(id, &user);
	else
		send_fail(conn, id, ENOENT, STAGE_OF_USER, "no such user or group");
	free(passwd);
	free(groups);
	return 0;
}
