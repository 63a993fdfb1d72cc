#!/bin/sh
# Make .venv and install a requirements file into it, and this library, editable: envs/make_environment.sh requirements.txt
# Debian and Ubuntu leave python3-venv out of a fresh system; it is then installed where that is allowed.
set -eu

requirements=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "$python is not Python 3.11 or newer; name another one: make PYTHON=python3.12 …" >&2
    exit 1
fi

if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    if ! "$python" -m venv .venv 2>/dev/null; then
        rm -rf .venv
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        as_root=
        [ "$(id -u)" = 0 ] || as_root="sudo -n"
        echo "Installing $version, which $python lacks"
        if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq "$version"; } >/dev/null 2>&1; then
            echo "$python cannot make virtual environments and may not install $version itself; run: sudo apt install $version" >&2
            exit 1
        fi
        "$python" -m venv .venv
    fi
fi

.venv/bin/pip install --quiet --disable-pip-version-check -r "$requirements"
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
