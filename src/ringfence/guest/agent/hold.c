/* --hold: in the mounts that bubblewrap made for a template. It writes its pid, a line, to standard output, and ends
 * with standard input: whoever took hold of the mounts by then keeps them. */
#include "agent.h"

#include <stdio.h>
#include <unistd.h>

int hold_main(void)
{
	char byte;

	if (dprintf(1, "%d\n", (int)getpid()) < 0)
		return 1;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
