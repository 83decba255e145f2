#!/usr/bin/env bash
# Runs the commands and the program of the guide and the README unchanged. `.ci/run guide` calls
# this script. `fieldbook` has to be on the path.
#
#   .ci/guide.sh page FILE     the shell blocks of a page, as one script in a folder of its own
#   .ci/guide.sh fresh FILE    the Cargo lines and the program of a page, as a new crate that syncs with a server
set -euo pipefail
repository=$PWD
address=127.0.0.1:7070

# Prints the blocks of a page in a language: `blocks LANGUAGE PAGE`.
blocks() { awk -v fence="^\`\`\`$1$" '$0 ~ fence { inside = 1; next } /^```/ { inside = 0 } inside' "$2"; }

page() {
    local folder
    folder=$(mktemp -d)
    {
        # A failing page leaves no server running.
        echo 'trap "kill \$(jobs -p) 2>/dev/null || true" EXIT'
        blocks sh "$1"
    } >"$folder/page.sh"
    (cd "$folder" && timeout 120 bash -euo pipefail page.sh </dev/null)
    rm -rf "$folder"
}

fresh() {
    local folder
    folder=$(mktemp -d)
    mkdir "$folder/src"
    {
        printf '[package]\nname = "my-crm"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
        blocks toml "$1" | sed "s#path = \"../fieldbook\"#path = \"$repository\"#"
    } >"$folder/Cargo.toml"
    blocks 'rust,no_run' "$1" >"$folder/src/main.rs"
    cp Cargo.lock "$folder/"
    cargo build --quiet --manifest-path "$folder/Cargo.toml" --target-dir "${CARGO_TARGET_DIR:-target}/fresh"
    (
        cd "$folder"
        fieldbook serve --data crm.store --listen "$address" &
        trap 'kill $! 2>/dev/null || true' EXIT
        # A server that does not start, as on a port in use, fails the step.
        curl -sf --retry 100 --retry-delay 0 --retry-connrefused --retry-max-time 30 "http://$address/v1/ready" >/dev/null
        "$(realpath "$repository/${CARGO_TARGET_DIR:-target}/fresh/debug/my-crm")" | tee printed
        grep -q ' ops acked, stopped: Idle$\|1 ops acked, Idle$' printed || { echo "it did not sync" >&2; exit 1; }
    )
    echo "$1: $(blocks toml "$1" | grep -c .) Cargo lines and $(blocks 'rust,no_run' "$1" | grep -c .) lines of program to a first sync"
    rm -rf "$folder"
}

"$1" "$(realpath "$2")"
