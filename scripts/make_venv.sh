#!/bin/sh
# make_venv.sh FOLDER [PYTHON]: makes a virtual environment with Python 3.11 or newer.
# Without PYTHON the first fitting of python3 and the versioned names is taken.
set -eu

folder=$1
asked=${2:-}
is_fit='import sys; sys.exit(sys.version_info < (3, 11))'

rm -f "$folder"/.installed* # a new environment has nothing installed

chosen=
for candidate in ${asked:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$is_fit" 2>/dev/null; then
        chosen=$candidate
        break
    fi
done

if [ -z "$chosen" ]; then
    found=$("${asked:-python3}" --version 2>&1) || found="no program '${asked:-python3}'"
    echo "Graybox needs Python 3.11 or newer, found $found. Install one and name it: make run PYTHON=python3.12" >&2
    exit 1
fi

if ! "$chosen" -m venv "$folder"; then
    rm -rf "$folder"
    echo "$chosen could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi
