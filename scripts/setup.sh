#!/bin/sh
# Makes .venv and installs Rulemill into it, with the libraries of an extra if one is named: sh scripts/setup.sh [dev]
# Does nothing when that is done already. PYTHON=/path/to/python chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)
extra=${1:-}
venv=.venv
log=$venv/install.log

fail() { # what is wrong, the line that mends it
    printf '%s\nTo mend it:  %s\n' "$1" "$2" >&2
    exit 1
}

as_root() { [ "$(id -u)" = 0 ] || printf 'sudo '; }

newer_python() { # the line that brings a Python of 3.11 or newer to this machine
    if command -v apt-get >/dev/null; then
        for minor in 14 13 12 11; do
            if apt-cache show "python3.$minor-venv" >/dev/null 2>&1; then
                echo "$(as_root)apt-get install python3.$minor-venv"
                return
            fi
        done
        echo "$(as_root)apt-get update && $(as_root)apt-get install python3-venv"
    elif command -v dnf >/dev/null; then echo "$(as_root)dnf install python3.12"
    elif command -v pacman >/dev/null; then echo "$(as_root)pacman -S python"
    elif command -v apk >/dev/null; then echo "$(as_root)apk add python3"
    elif command -v zypper >/dev/null; then echo "$(as_root)zypper install python312"
    elif command -v brew >/dev/null; then echo "brew install python"
    else echo "install Python 3.11 or newer from https://www.python.org/downloads/ and say make again"
    fi
}

venv_module() { # the line that gives the Python named by its version what venv needs
    if command -v apt-get >/dev/null; then echo "$(as_root)apt-get install python$1-venv"
    else newer_python
    fi
}

find_python() { # sets python to one that will do, or ends
    python='' old='' bare=''
    for name in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
        # A name on PATH may be a stub that only says "not installed": what counts is what it answers.
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null) || continue
        if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null; then
            old="$name is Python $version"
        elif ! "$name" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then
            [ -n "$bare" ] || bare=$version
        else
            python=$name
            return
        fi
    done
    [ -z "$bare" ] || fail "Python $bare is here, but without its venv module." "$(venv_module "$bare")"
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not Python 3.11 or newer." "$(newer_python)"
    fail "Rulemill needs Python 3.11 or newer${old:+; $old}." "$(newer_python)"
}

# What a stamp says: where, for which pyproject.toml. A folder that moved has a .venv whose scripts point nowhere.
sdk=tests/thingsboard-sdk.txt
stamp="$here $(cat pyproject.toml "$sdk" 2>/dev/null | cksum)"
stamped() { [ "$(cat "$venv/installed$1" 2>/dev/null)" = "$stamp" ]; }
moved() { cat "$venv"/installed* 2>/dev/null | grep -qvF "$here "; }
works() { "$venv/bin/python" -c 'import pip' 2>/dev/null </dev/null && ! moved; }

if works && { stamped "-dev" || { [ -z "$extra" ] && stamped ''; }; }; then exit 0; fi

if ! works; then
    find_python
    echo "Making $venv with $("$python" -V 2>&1)" >&2
    "$python" -m venv --clear "$venv"
fi

echo "Installing Rulemill${extra:+ and its $extra tools} into $venv (the first time takes a minute or so)" >&2
"$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --editable ".${extra:+[$extra]}" >"$log" 2>&1 </dev/null &
pip=$!
trap 'kill "$pip" 2>/dev/null; exit 130' INT TERM HUP
last=''
while kill -0 "$pip" 2>/dev/null; do
    sleep 1
    now=$(grep -E '^ *(Collecting|Downloading|Building|Installing)' "$log" | tail -n 1 | cut -c 1-72)
    [ "$now" = "$last" ] || printf '  %s\n' "$now" >&2
    last=$now
done
trap - INT TERM HUP
if ! wait "$pip"; then
    tail -n 15 "$log" >&2
    fail "pip could not install Rulemill; all it said is in $log." "see what it says above (often: no package index in reach), then say make again"
fi
if [ -n "$extra" ] && [ -f "$sdk" ]; then
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --upgrade --target "$venv/thingsboard-sdk" --requirement "$sdk" >>"$log" 2>&1 </dev/null ||
        echo "ThingsBoard's SDK could not be installed ($log says why): its tests are skipped" >&2
fi
echo "$stamp" >"$venv/installed${extra:+-$extra}"
