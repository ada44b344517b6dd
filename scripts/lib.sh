# Steps of scripts/setup; each does nothing when its work is done.

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo -n "$@"
    else die "not root and no sudo: please run as root: $*"; fi
}

# packages given as package:command; installed when the command is missing
system_packages() {
    local missing=() pair path="$PATH:/usr/sbin:/sbin"
    for pair in "$@"; do
        PATH=$path command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "please install: ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq || say "apt-get update failed; trying with the lists that are there"
    as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

venv() {
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null && return
    rm -rf .venv
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed"
    "$python" -m venv .venv 2>/dev/null && .venv/bin/python -m pip --version >/dev/null 2>&1 && return
    rm -rf .venv
    as_root apt-get update -qq
    as_root apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv .venv
}

python_packages() {
    local stamp=.venv/.installed
    if [ -f $stamp ] && cmp -s <(cat pyproject.toml hatch_build.py; pwd) $stamp; then return; fi
    c_compiler
    say "installing Python packages"
    .venv/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
    cat pyproject.toml hatch_build.py <(pwd) >$stamp
}

c_compiler() {
    command -v musl-gcc >/dev/null && return
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; } || return 0
    system_packages gcc:gcc musl-tools:musl-gcc
}

guest() { .venv/bin/python -m ringfence.guest.build --quiet; }

daemon() {
    docker_answers && return
    say "starting dockerd"
    as_root scripts/dockerd
    docker_answers || die "no Docker daemon answers: see /var/log/ringfence-dockerd.log"
}

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The frameworks whose suites are run have many dependencies of their own: an environment apart.
external_environment() {
    local stamp=.cache/external/.installed
    if [ -f $stamp ] && cmp -s <(cat pyproject.toml; pwd) $stamp; then return; fi
    say "installing the frameworks of the external suites"
    [ -x .cache/external/bin/python ] || .venv/bin/python -m venv .cache/external
    .cache/external/bin/python -m pip install -q --disable-pip-version-check -e '.[external]' pytest pytest-asyncio pytest-timeout
    cat pyproject.toml <(pwd) >$stamp
}
