# Steps of scripts/setup; each does nothing when its work is done, and goes on where one was broken off.

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# sudo asks for a password only where a person sits
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif [ -t 0 ]; then sudo "$@"
    else sudo -n "$@"; fi
}

may_be_root() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }

lists_are_new=
update_lists() {
    [ -n "$lists_are_new" ] || apt_get update || say "apt-get update failed; trying with the lists that are there"
    lists_are_new=yes
}

install() {
    local wanted="please install $* (on Debian and Ubuntu, as root: apt-get install $*), then run this again"
    command -v apt-get >/dev/null && may_be_root || die "$wanted"
    say "installing $*"
    update_lists
    apt_get install -y --no-install-recommends "$@" && return
    as_root dpkg --configure -a || true # what an installation that was broken off left
    apt_get install -y --no-install-recommends "$@" || die "$wanted"
}

# whether a command is there, or a file
there() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

# packages given as package:command or package:/file; installed when that is missing
system_packages() {
    local missing=() pair
    for pair in "$@"; do there "${pair#*:}" || missing+=("${pair%%:*}"); done
    [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}

# the same for what not every release has: what is not to be had is said
optional_packages() {
    local pair
    for pair in "$@"; do
        there "${pair#*:}" && continue
        if may_be_root && command -v apt-get >/dev/null; then update_lists; fi
        # not into a pipe: where its reader leaves at the first match, the writer's end counts as a failure
        if [[ $(apt-cache policy "${pair%%:*}" 2>/dev/null) =~ Candidate:\ [^\(] ]]; then install "${pair%%:*}"
        else say "this system has no package ${pair%%:*}: the tests that need it are skipped"; fi
    done
}

# environment DIRECTORY PYTHON: make one, unless a whole one is there that was made at this place
environment() {
    local made
    made=$(sed -n 's/^command = .* //p' "$1/pyvenv.cfg" 2>/dev/null || true)
    if [ "${made:-$PWD/$1}" = "$PWD/$1" ] && "$1/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    rm -rf "$1"
    "$2" -m venv "$1" >/dev/null 2>&1 && return
    rm -rf "$1"
    install "$("$2" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    "$2" -m venv "$1"
}

venv() {
    local python=${PYTHON:-python3}
    if [ -f .venv/.installed ] && .venv/bin/python -c 'import ringfence, pytest' 2>/dev/null &&
        [ "$(tail -n 1 .venv/.installed)" = "$PWD" ]; then return; fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$python is not Python 3.11 or newer: install one, or name it: PYTHON=/path/to/python3.12 make ..."
    environment .venv "$python"
}

pip_install() { "$1/bin/python" -m pip install -q --disable-pip-version-check "${@:2}"; }

python_packages() {
    local stamp=.venv/.installed
    if [ -f $stamp ] && cmp -s <(cat pyproject.toml hatch_build.py; pwd) $stamp; then return; fi
    c_compiler
    say "installing Python packages (about half a minute)"
    pip_install .venv -e '.[dev]' || die "pip could not install what pyproject.toml names: see above"
    cat pyproject.toml hatch_build.py <(pwd) >$stamp
}

c_compiler() {
    there musl-gcc && there gcc && there /usr/include/errno.h && return
    if command -v apt-get >/dev/null && may_be_root; then
        system_packages gcc:gcc libc6-dev:/usr/include/errno.h musl-tools:musl-gcc
    elif ! echo 'int main(void) { return 0; }' | cc -static -x c - -o /dev/null 2>/dev/null; then
        say "no C compiler that can link static: taking the one of the package ziglang"
        pip_install .venv ziglang
    fi
}

guest() { .venv/bin/python -m ringfence.guest.build --quiet; }

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The settings of an Engine that is ours to set: gVisor as a runtime, where it is there.
engine_settings() {
    if there runsc; then
        echo '{"runtimes":{"runsc":{"path":"/usr/bin/runsc","runtimeArgs":["--platform=ptrace","--network=none","--fsgofer-host-uds"]}}}'
    else
        echo '{}'
    fi
}

install_engine() {
    if may_be_root && [ ! -e /etc/docker/daemon.json ] && ! there dockerd; then
        as_root mkdir -p /etc/docker
        engine_settings | as_root tee /etc/docker/daemon.json >/dev/null
    fi
    install docker.io iptables
}

# A Docker Engine that answers this user: the one that is there, else the distribution's.
engine() {
    local socket=/var/run/docker.sock
    if docker_answers; then
        # one that was started here learns of a runtime that was installed since
        if [ -e /run/ringfence-dockerd/pid ] && may_be_root; then as_root scripts/dockerd; fi
        return
    fi
    there docker || there dockerd || install_engine
    there docker || install docker-cli # a package of its own since Debian 13
    docker_answers && return
    [ -z "${DOCKER_HOST:-}" ] ||
        die "DOCKER_HOST=$DOCKER_HOST does not answer: start that daemon, or unset DOCKER_HOST to use this machine's"
    there dockerd || install_engine
    if may_be_root; then start_engine; fi
    docker_answers && return
    [ ! -S $socket ] || [ -w $socket ] ||
        die "this user may not use Docker: sudo usermod -aG docker $(id -un), log in again, then run this again"
    may_be_root || die "no Docker daemon answers: as root, systemctl start docker (or scripts/dockerd)"
    die "no Docker daemon answers: see /var/log/ringfence-dockerd.log or journalctl -u docker"
}

start_engine() {
    say "starting dockerd"
    if [ -d /run/systemd/system ] && as_root systemctl start docker 2>/dev/null; then return; fi
    as_root scripts/dockerd || true
}

# The frameworks whose suites are run have many dependencies of their own: an environment apart.
external_environment() {
    local stamp=.cache/external/.installed
    if [ -f $stamp ] && cmp -s <(cat pyproject.toml; pwd) $stamp; then return; fi
    say "installing the frameworks of the external suites"
    mkdir -p .cache
    environment .cache/external .venv/bin/python
    pip_install .cache/external -e '.[external]' pytest pytest-asyncio pytest-timeout
    cat pyproject.toml <(pwd) >$stamp
}

# What cppcheck says of the agent. Each version says something else, right or wrong: that of Debian 12 counts, the others'
# is shown. A table of functions by their numbers is no assignment to a number; every allocation is looked at where its
# operation is added.
look_at_agent() {
    local fails=0
    there cppcheck || { echo "cppcheck is not installed: the agent is not looked at" >&2; return; }
    [[ $(cppcheck --version) != *" 2.10"* ]] || fails=1
    cppcheck --quiet --std=c11 --enable=warning,portability "--error-exitcode=$fails" -D__x86_64__ '-DBUILD=""' \
        --suppress={AssignmentAddressToInteger,nullPointerOutOfMemory,ctunullpointerOutOfMemory} src/ringfence/guest/agent
}
