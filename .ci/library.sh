# Helpers of .ci/run: headers and times, absent subjects, tools. This file is sourced and never run.

export CARGO_TERM_PROGRESS_WHEN=never
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0} # a clean checkout gains nothing from it

target_folder=${CARGO_TARGET_DIR:-target}
tools_folder=$PWD/$target_folder/ci-tools
export PATH=$tools_folder/bin:$PATH

step=none
step_began=0
summary=()
figures=()

begin() {
    step=$1
    step_began=$SECONDS
    outcome=passed
    printf '\n======== %s ========\n' "$step"
}

end() {
    local took=$((SECONDS - step_began))
    summary+=("$(printf '%-8s %-12s %4d s' "$outcome" "$step" "$took")")
    printf -- '-------- %s: %s in %d s --------\n' "$step" "$outcome" "$took"
    step=none
}

# Runs a command and keeps the matching lines of its output for the end of the run: `counted PATTERN
# COMMAND...`.
counted() {
    local pattern=$1 log line status=0
    shift
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" || status=$?
    while IFS= read -r line; do
        figures+=("$(printf '%-12s %s' "$step" "$line")")
    done < <(grep -E -- "$pattern" "$log" || true)
    rm -f "$log"
    return "$status"
}

# Ends the run, for whatever reason, so that a failure always names its step.
finish() {
    local status=$1
    if [[ $step != none ]]; then
        outcome=FAILED
        end
    fi
    printf '\n======== summary: %d s ========\n' "$SECONDS"
    printf '%s\n' "${summary[@]}"
    ((${#figures[@]} == 0)) || printf '%s\n' '' "what was counted (docs/promises.md says what for):" "${figures[@]}"
    exit "$status"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Reports that the subject of the step is missing. Use it as: `present || { absent "why"; return;
# }`.
absent() {
    if grep -qx -- "$step" .ci/required; then
        fail "$step is required (.ci/required), but $*"
    fi
    outcome=ABSENT
    printf '!!!!!!!! ABSENT: %s: %s\n' "$step" "$*"
}

# Installs a cargo subcommand from crates.io: the newest version, or a given one. It is not
# optimised, because it then builds in a third of the time and runs for seconds only.
need_cargo_tool() {
    command -v "$1" >/dev/null && return
    local began=$SECONDS
    cargo install --locked --debug --quiet --root "$tools_folder" --target-dir "$tools_folder/build" "$1${2:+@$2}"
    rm -rf "$tools_folder/build"
    echo "installed $1 in $((SECONDS - began)) s"
}

need_program() {
    command -v "$1" >/dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"
}

# Prints the command of README.md after `<!-- command: NAME -->`: the fenced block directly below
# it.
readme_command() {
    [[ -f README.md ]] || return 0
    awk -v marker="<!-- command: $1 -->" '
        $0 == marker { armed = 1; next }
        armed && /^```/ { if (inside) exit; inside = 1; next }
        inside { print; next }
        armed && NF { exit }
    ' README.md
}

# Prints the tracked lines that match. Unlike `git grep`, it succeeds if no line matches, and fails
# only if it cannot search.
tracked() {
    local status=0
    LC_ALL=C.UTF-8 git --no-pager grep -nI "$@" || status=$?
    ((status <= 1))
}

has_binary() {
    cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
package, binary = sys.argv[1:]
targets = [t for p in json.load(sys.stdin)["packages"] if p["name"] == package for t in p["targets"]]
sys.exit(not any(t["name"] == binary and "bin" in t["kind"] for t in targets))' "$1" "$2"
}

# Prints the names of the packages that are to be published, one a line.
published() {
    cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
print("\n".join(p["name"] for p in json.load(sys.stdin)["packages"] if p["publish"] is None))'
}

# Prints the toolchain of a version of Rust, such as 1.90. It installs a missing toolchain first,
# and fails if that is impossible.
toolchain_of() {
    local pattern="^${1//./\\.}(\\.[0-9]+)?-"
    command -v rustup >/dev/null || return 1
    if ! rustup toolchain list | grep -qE "$pattern"; then
        timeout 300 rustup toolchain install "$1" --profile minimal --no-self-update >&2 || return 1
    fi
    rustup toolchain list | grep -E "$pattern" | head -n 1 | cut -d' ' -f1
}

# Prints "name version|features" of each package in a package's normal tree.
tree() {
    cargo tree --edges normal --prefix none --no-dedupe --format '{p}|{f}' "$@" | sed 's/ (\*)//' | sort -u
}
