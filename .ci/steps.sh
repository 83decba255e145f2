# The steps of .ci/run, in its order. This file is sourced and never run. A step is a function
# `step-NAME` under `set -e`.

# Runs the first command of the README, like a reader.
step-demo() { counted '^(mutations|equal devices|unexplained) ' run_readme demo; }

# Runs the second command of the README. The tests with Postgres have a step of their own.
step-test() {
    local log
    local -x FIELDBOOK_POSTGRES=off
    log=$(mktemp)
    run_readme test 2>&1 | tee "$log"
    figures+=("$(awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
        END { printf "test         %d passed, %d failed, %d ignored", passed, failed, ignored }' "$log")")
    rm -f "$log"
}

run_readme() {
    local command
    command=$(readme_command "$1")
    [[ -n $command ]] || { absent "README.md has no command after '<!-- command: $1 -->'"; return; }
    printf '$ %s\n' "$command"
    bash -euo pipefail -c "$command"
}

step-format() { cargo fmt --all --check; }

step-clippy() { cargo clippy --workspace --all-targets -- -D warnings; }

step-docs() { RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace; }

# Checks that the public API equals docs/public-api.txt, so that each change of the API is in a
# diff.
step-api() {
    local printed
    printed=$(mktemp)
    .ci/public-api >"$printed"
    if ! diff -u docs/public-api.txt "$printed"; then
        printf '%s\n' "If the API is meant to change (lines with + are what it is now), renew the file and commit it:" \
            "  .ci/public-api >docs/public-api.txt" >&2
        fail "the public API is not what docs/public-api.txt says"
    fi
    echo "the public API: $(wc -l <"$printed") lines"
    rm -f "$printed"
}

# Checks that core depends on no storage engine, runtime, client, clock or randomness, and on few
# packages.
step-core-alone() {
    cargo test -p fieldbook-core --no-default-features
    local core packages count banned
    core=$(tree -p fieldbook-core --no-default-features)
    packages=$(cut -d' ' -f1 <<<"$core" | sort -u)
    for banned in redb tokio reqwest getrandom rand; do
        ! grep -qx "$banned" <<<"$packages" || fail "$banned is in core's tree: core is pure"
    done
    ! grep -E '^chrono .*[|,](clock|now|wasmbind)(,|$)' <<<"$core" || fail "chrono in core has a clock"
    ! grep -E '^uuid .*[|,](v1|v4|v6|v7|rng|fast-rng)(,|$)' <<<"$core" || fail "uuid in core draws time or randomness"
    count=$(wc -l <<<"$packages")
    echo "core's tree: $count packages"
    ((count <= 45)) || fail "core's tree has $count packages, the ceiling is 45"
}

# Checks the dependencies: an app gets no server and no argument parser, transport does not depend
# on projections, and the fold uses no rule.
step-arrows() {
    local found line
    for line in 'use fieldbook_core::rules::View;' 'use fieldbook_core::{Seq, rules};' 'core::rules::undo::compensate(' \
        $'use fieldbook_core::{\n    rows::{RecordRow},\n    rules::View,\n};'; do
        [[ -n $(names_of_rules <<<"$line") ]] || fail "the check finds no rule in: $line"
    done
    found=$(find projections/src projections/tests -name '*.rs' -print0 | while IFS= read -r -d '' line; do
        names_of_rules <"$line" | sed "s#^#$line: #"
    done)
    [[ -z $found ]] || fail "projections names rules, of which the fold needs none:"$'\n'"$found"
    local door packages packages_of pair banned
    door=$(tree -p fieldbook)
    packages=$(cut -d' ' -f1 <<<"$door" | sort -u)
    for banned in axum axum-core clap clap_builder fieldbook-server fieldbook-play fieldbook-cli rusqlite; do
        ! grep -qx "$banned" <<<"$packages" || fail "$banned is in the front door's tree"
    done
    ! grep -E '^hyper(-util)? .*[|,]server(,|$)' <<<"$door" || fail "the front door compiles an HTTP server"
    for pair in "transport projections" "projections transport" "transport server" "core projections"; do
        packages_of=$(tree -p "fieldbook-${pair% *}")
        ! grep "^fieldbook-${pair#* } " <<<"$packages_of" || fail "${pair% *} depends on ${pair#* }"
    done
    echo "the front door's tree: $(wc -l <<<"$packages") packages"
    packages=$(tree -p fieldbook --no-default-features | cut -d' ' -f1 | sort -u)
    for banned in reqwest hyper rustls; do
        ! grep -qx "$banned" <<<"$packages" || fail "$banned is in the front door's tree without the feature http"
    done
    echo "without the feature http: $(wc -l <<<"$packages") packages"
}

# Prints the places where source text names core's rules, in whatever way they are imported.
# `schema.rules(…)` is a method.
names_of_rules() {
    tr '\n' ' ' | grep -oP '\brules::\w*|\bfieldbook_core::\{[^;]*?\brules\b(?!\()|\bfieldbook_core::rules\b' || true
}

# Checks the text of tracked files. Comments may name bincode, and code outside the codec may not.
step-hygiene() {
    local found
    found=$(tracked -E '^[^/]*\bbincode\b' -- '*.rs' ':!core/src/codec.rs')
    [[ -z $found ]] || fail "bincode is named outside core/src/codec.rs:"$'\n'"$found"
    # The slashes are outside the group, so that this line does not match itself.
    found=$(tracked -E '/(work|root|home)/')
    [[ -z $found ]] || fail "a path of somebody's machine:"$'\n'"$found"
    found=$(tracked -E '^source = ' -- '*Cargo.lock' | sed '\#"registry+https://github.com/rust-lang/crates.io-index"$#d')
    [[ -z $found ]] || fail "a package from elsewhere than the default registry:"$'\n'"$found"
    # Invisible characters, or those that change the direction of text, would show a reader another
    # text than the compiler reads.
    found=$(tracked -P '[\x{00A0}\x{00AD}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2069}\x{FEFF}]' \
        -- '*.rs' '*.toml' '*.py' '*.sh' '*.md' .ci)
    [[ -z $found ]] || fail "invisible characters (write them as escapes):"$'\n'"$found"
    # A failing snapshot test leaves such a file. The next run that passes removes it.
    found=$(git ls-files -- '*.snap.new')
    [[ -z $found ]] || fail "a snapshot that nobody accepted:"$'\n'"$found"
    found=$(git ls-files -z | xargs -0 -I{} find {} -maxdepth 0 -size +1024k)
    [[ -z $found ]] || fail "a tracked file over 1 MiB:"$'\n'"$found"
    # The bugs of tests/planted are planted by hand. This checks that their patches still apply.
    local patch
    for patch in tests/planted/*.patch; do
        git apply --check "$patch" || fail "$patch no longer applies: make it anew"
    done
}

# Checks that the published packages compile with the oldest Rust that they promise, with all
# features. The step is not in .ci/required, because a machine may be unable to fetch another
# toolchain.
step-minimum() {
    local version toolchain packages
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    toolchain=$(toolchain_of "$version") || { absent "Rust $version cannot be had here"; return; }
    mapfile -t packages < <(published | sed 's/^/--package=/')
    rustup run "$toolchain" cargo check --locked --all-features "${packages[@]}" --target-dir "$target_folder/minimum"
    figures+=("minimum      $(rustup run "$toolchain" rustc --version), ${#packages[@]} packages")
}

# Checks that each published package builds from its own files, and that no manifest names an
# address that does not exist. Cargo's home folder keeps what was unpacked of a package, by its
# version. It would be taken again in place of this checkout's files, so the step deletes it first.
step-package() {
    local packages found
    found=$(tracked -E '^(repository|homepage|documentation)\b' -- '*Cargo.toml')
    [[ -z $found ]] || fail "there is no such address yet:"$'\n'"$found"
    rm -rf "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/fieldbook*
    mapfile -t packages < <(published | sed 's/^/--package=/')
    # Packages are built outside of the workspace's profiles, so with all debug information.
    CARGO_PROFILE_DEV_DEBUG=0 \
        cargo package --locked --allow-dirty --quiet "${packages[@]}" --target-dir "$target_folder/package"
    figures+=("package      ${#packages[@]} built from their own files")
}

# Advisories are left out: see deny.toml.
step-deny() {
    need_cargo_tool cargo-deny
    cargo deny --workspace --locked check --hide-inclusion-graph bans licenses sources
}

# Checks exported logs and bundles with a second program, written from docs/log-format.md alone. It
# accepts books of the shipped history, and refuses an export in which a byte was changed.
step-verifier() {
    [[ -f tests/verify_log.py ]] || { absent "there is no tests/verify_log.py"; return; }
    local folder book exported ids program=$target_folder/release/fieldbook
    cargo build --release -p fieldbook-cli
    folder=$(mktemp -d)
    "$program" play play/data/crm-history/openstates-vt-de.jsonl.gz --books "$folder/books" >"$folder/play.txt"
    # The loop takes the first book and the largest one, which has pages and conflicts.
    for book in "$(find "$folder/books" -name '*.book' | sort | sed -n 1p)" \
        "$(find "$folder/books" -name '*.book' -printf '%s %p\n' | sort -rn | sed -n '1s/^[0-9]* //p')"; do
        exported=$folder/$(basename "$book").export
        "$program" log "$book" --export "$exported"
        python3 tests/verify_log.py "$exported"
        python3 - "$exported" <<'PYTHON'
import sys
path = sys.argv[1]
data = bytearray(open(path, "rb").read())
place = next(i for i in range(len(data) // 2, len(data)) if chr(data[i]) in "0123456789abcdef")
data[place] = ord("0") if data[place] != ord("0") else ord("1")
open(path + ".changed", "wb").write(data)
PYTHON
        ! python3 tests/verify_log.py "$exported.changed" || fail "the verifier accepts a changed export"
        # The head of a bundle is that of its book, whatever the bundle leaves out.
        for ids in keep hide; do
            "$program" bundle "$book" --ids "$ids" -o "$exported.$ids" >"$folder/bundle.txt"
            diff <(python3 tests/verify_log.py "$exported" | grep -o 'head .*') \
                <(python3 tests/verify_log.py "$exported.$ids" | grep -o 'head .*') ||
                fail "the verifier finds another head in a bundle"
        done
    done
    rm -rf "$folder"
}

# Runs the sync rules as data: our own cases, and those beside the checkout. Every case runs with
# drawn seeds, with a request lost before every push, with the book opened again after every step,
# and with a process for each exchange.
step-spec() {
    has_binary fieldbook-sim spec || { absent "fieldbook-sim has no binary 'spec'"; return; }
    compgen -G 'tests/spec/*.jsonl' >/dev/null || { absent "there is no tests/spec/*.jsonl"; return; }
    local files=(tests/spec/*.jsonl) beside
    for beside in ../shared/spec/examples.jsonl ../shared/faults/{order,delete-order,clock}.jsonl; do
        [[ ! -f $beside ]] || files+=("$beside")
    done
    counted '^[0-9]+ passed' \
        cargo run --release -p fieldbook-sim --bin spec -- --every-manner --seeds 40 "${files[@]}"
}

# Checks the laws of the rules, each with this many drawn cases. `FIELDBOOK_LAW_CASES=1000000
# .ci/run laws` is the long run.
step-laws() {
    [[ -f core/tests/laws.rs ]] || { absent "there is no core/tests/laws.rs"; return; }
    # One command runs both packages. Two commands would build the common crates twice, with other
    # features.
    local -x PROPTEST_CASES=${FIELDBOOK_LAW_CASES:-10000}
    cargo test --release -p fieldbook-core -p fieldbook-sim --test laws
    figures+=("laws         $PROPTEST_CASES cases of each")
}

# Walks small worlds of the real rules, each whole or as far as is enough for a run: more than a
# million distinct states in all. `walk --world NAME --states all` walks one world farther.
step-walk() {
    has_binary fieldbook-sim walk || { absent "fieldbook-sim has no binary 'walk'"; return; }
    counted '^(worlds|distinct states|steps|laws broken) ' cargo run --release -p fieldbook-sim --bin walk
}

# Runs every fuzz target for a short time, two at a time. Without a nightly toolchain, the stable
# one runs with RUSTC_BOOTSTRAP. There is no sanitizer: our own code has no `unsafe`, and the build
# takes half the time.
step-fuzz() {
    [[ -f fuzz/Cargo.toml ]] || { absent "there is no fuzz/Cargo.toml"; return; }
    need_program c++ g++
    need_cargo_tool cargo-fuzz
    local toolchain=(cargo +nightly) targets found
    if ! rustup toolchain list | grep -q '^nightly'; then
        toolchain=(env RUSTC_BOOTSTRAP=1 cargo)
    fi
    targets=$("${toolchain[@]}" fuzz list)
    [[ -n $targets ]] || { absent "fuzz/ has no target"; return; }
    "${toolchain[@]}" fuzz build --sanitizer none
    # New inputs go to their own folder, so that the tracked corpus grows only on purpose.
    found=$(mktemp -d)
    export -f fuzz_one
    counted ' runs, ' xargs -P 2 -I{} bash -c 'fuzz_one "$@"' fuzz_one {} "$found" "${FUZZ_SECONDS:-20}" "$(seed_of_tree)" \
        <<<"$targets"
    rm -rf "$found"
}

# Runs one built target. The arguments are its name, the folder for new inputs, the seconds, and the
# seed. A failing input is printed as text, so that it can be run again from the output alone:
# `base64 -d >FILE`, then `inputs --target NAME --file FILE`.
fuzz_one() {
    local name=$1 found=$2/$1 log=$2/$1.log corpus program input
    mkdir -p "$found"
    corpus=("$found")
    [[ ! -d fuzz/corpus/$name ]] || corpus+=("fuzz/corpus/$name")
    program=$(find fuzz/target -path "*/release/$name" -type f | head -n 1)
    mkdir -p "fuzz/artifacts/$name"
    if "$program" "${corpus[@]}" -artifact_prefix="fuzz/artifacts/$name/" -max_total_time="$3" -seed="$4" -timeout=30 \
        -rss_limit_mb=4096 -print_final_stats=1 >"$log" 2>&1; then
        printf '%-18s %12s runs, 0 findings\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        tail -n 60 "$log"
        for input in "fuzz/artifacts/$name"/*; do
            [[ ! -f $input ]] || { echo "$input, in base64:"; base64 "$input"; }
        done
        echo "$name FAILED: see fuzz/artifacts/$name"
        return 1
    fi
}

# Makes the power and the disk fail at every point, and checks that the same test finds the fault of
# an old version of the engine.
step-crash() {
    has_binary fieldbook-sim crash_points || { absent "fieldbook-sim has no binary 'crash_points'"; return; }
    counted '^(crash points|images|double-crash images|disk failures|lost or damaged|written after error) ' \
        cargo run --release -p fieldbook-sim --bin crash_points
    counted '^redb 4' cargo run --manifest-path tests/known-bad/Cargo.toml --target-dir "$target_folder/known-bad"
}

# Runs the group commit and the book under thousands of schedules of their threads. The tests have
# their own workspace and target folder, because everything is compiled again with shuttle's locks.
step-shuttle() {
    [[ -f tests/concurrency/Cargo.toml ]] || { absent "there is no tests/concurrency"; return; }
    local built
    built=$(realpath -m "$target_folder/concurrency")
    counted ': [0-9]+ random and [0-9]+ PCT schedules ' \
        env -u RUSTFLAGS -C tests/concurrency cargo test --locked --target-dir "$built" -- --show-output
}

# Runs the commands and programs of the guide and the README unchanged, and the examples.
step-guide() {
    local page example
    need_program curl curl
    cargo build --release -p fieldbook-cli
    for page in docs/guide/*.md; do
        grep -q '^```sh$' "$page" || continue
        echo "$page"
        PATH=$(realpath "$target_folder/release"):$PATH .ci/guide.sh page "$page"
    done
    for page in README.md docs/guide/start.md docs/guide/first-list.md; do
        counted ' lines of program to a first sync$' env PATH="$(realpath "$target_folder/release"):$PATH" .ci/guide.sh fresh "$page"
    done
    for example in conflicts projection own_remote; do
        cargo run --quiet --example "$example"
    done
}

# Shows history pages in a browser and compares them with the program's own answers: books of the
# shipped history at 50 positions each, values that want to be more than text, a large book.
step-page() {
    [[ -f tests/page/check.py ]] || { absent "there is no tests/page"; return; }
    local folder books program=$target_folder/release/fieldbook
    need_program chromium chromium
    cargo build --release -p fieldbook-cli
    folder=$(mktemp -d)
    "$program" play play/data/crm-history/openstates-vt-de.jsonl.gz --books "$folder/books" >"$folder/play.txt"
    # The two largest books have pages, conflicts and transactions.
    mapfile -t books < <(find "$folder/books" -name '*.book' -printf '%s %p\n' | sort -rn | sed -n '1,2s/^[0-9]* //p')
    counted ': equal$' python3 tests/page/check.py "$program" "${books[@]}"
    counted 'are text' python3 tests/page/check.py "$program" --hostile
    "$program" play "$folder/stream" --generate 20000 --devices 1 --oracle "$folder/final"
    "$program" play "$folder/stream" --books "$folder/large" >"$folder/play.txt"
    counted '^page of ' python3 tests/page/check.py "$program" --speed "$(find "$folder/large" -name '*.book')"
    rm -rf "$folder"
}

# Measures the times of a device of one tenant, alone and while another tenant hinders it as much as
# it can, and the server's memory.
step-door() {
    [[ -f server/examples/door/main.rs ]] || { absent "there is no server/examples/door"; return; }
    counted ' MiB|^door ' cargo run --release -p fieldbook-server --example door
}

# Runs the tests of the store in Postgres, which is started for them and killed by them. The features
# are those of the step `test`, so that nothing is built twice.
step-postgres() {
    [[ -d server/src/store/postgres ]] || { absent "there is no server/src/store/postgres"; return; }
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql
    fi
    local -x FIELDBOOK_POSTGRES=needed
    counted 'without an answer' cargo test --workspace --lib -- store::postgres --show-output
    counted ' tries, ' cargo test --workspace --test on_postgres -- --show-output
}

# Runs simulated worlds. A failing seed is printed with the command that plays it again.
step-simulation() {
    has_binary fieldbook-sim simulate || { absent "fieldbook-sim has no binary 'simulate'"; return; }
    local from target
    from=$(seed_of_tree)
    echo "seeds from $from on"
    counted '^(seeds|device-hours|ops|exchanges|recoveries|fault: .*|failures) ' \
        cargo run --release -p fieldbook-sim --bin simulate -- --seeds 500 --from "$from"
    # These are the fuzz targets over whole books. This program makes thousands of runs in the time
    # of a few hundred runs of libFuzzer.
    for target in rebase reorderings world; do
        counted ' runs, ' cargo run --release -p fieldbook-sim --bin inputs -- --target "$target" --seeds 2000 --from "$from"
    done
}

# Runs the real client and server with a box between them that makes the faults of a network, and
# the program as processes for one command each. A failing seed is printed with the command that
# runs it again.
step-middlebox() {
    has_binary fieldbook-middlebox fieldbook-middlebox || { absent "there is no tests/middlebox"; return; }
    local from program=$target_folder/release/fieldbook
    from=$(seed_of_tree)
    echo "seeds from $from on"
    counted '^(seeds|ops|exchanges|answered|refused in truth|reopenings|fault: .*|failures) ' \
        cargo run --release -p fieldbook-middlebox -- --seeds 200 --from "$from"
    cargo build --release -p fieldbook-cli
    counted '^(seeds|exchanges|reopenings|failures) ' \
        cargo run --release -p fieldbook-middlebox -- --seeds 10 --from "$from" --program "$program"
}

# Prints the first seed for the present state of the tree. Another state has other seeds, and the
# same state has the same ones, so a failure stays a failure.
seed_of_tree() {
    local tree=0
    tree=$(git rev-parse 'HEAD^{tree}' 2>/dev/null) || true
    echo "$((16#${tree:0:7}))"
}
