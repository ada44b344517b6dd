"""The images that scripts/images makes: what the tests run in."""

DEBIAN = "ringfence-test/debian"
"""python3, pytest, git, gcc, make, curl; the user "user" is 1000."""

BUSYBOX = "ringfence-test/busybox"
"""No bash, no coreutils, no Python."""

SCRATCH = "ringfence-test/scratch"
"""Empty: only the guest can run there."""
