/* Short files that are read whole, as those of /proc are. */
#include "agent.h"

#include <fcntl.h>
#include <unistd.h>

ssize_t read_text(int directory, const char *path, char *text, size_t room)
{
	int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, room - 1);
	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	return size;
}
