#!/usr/bin/env bash
# Measure everything that a GPU is asked for, in at most eight minutes, with random weights and without a network:
#   reports/gpu.sh [--device cuda|cpu] [--output DIR] [--page FILE] [--tiny]
# Run it in an environment that has torch and shipbench. Each part runs in its own process with its own time limit and
# writes its file row by row, what matters most first, so a part that is cut off keeps what it has. The page is filled
# after every part. --tiny takes two methods, and a model that a CPU trains in seconds. The exit status is 0 if every
# part ended or was cut off with results, and 1 if one failed, hung, left no result or found a difference.
set -uo pipefail
cd "$(dirname "$0")/.."

device=cuda output=reports/bench page=docs/explanation/performance.md
model=(--batch-size 64 --repeats 2)
tests=(tests/cuda)
patience=1
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --output) output=$2; shift 2 ;;
        --page) page=$2; shift 2 ;;
        --tiny)
            model=(--method ship,linear --backbone test_vit --image-size 64 --batch-size 4 --levels 0,2,4 --repeats 1
                --train-images 16 --test-images 16)
            tests=(tests/cuda -k "ship and fp32")
            # A busy machine may take its time, and threads do not speed up a model this small.
            patience=10
            export OMP_NUM_THREADS=1
            shift ;;
        *) echo "unknown option $1"; exit 2 ;;
    esac
done
kind=$([ "$device" = cpu ] && echo cpu || echo gpu)
python=$(command -v python || command -v python3)
mkdir -p "$output"
# Figures of an earlier run must not stand for those of a part that leaves none.
rm -f "$output/$kind"-{equality,repeats,steps,profile,end-to-end,stacks}.json
# Of eight minutes, ten seconds are for the page.
seconds=$((470 * patience))
failed=() cut_off=()

fill_page() { "$python" -m shipbench.bench.table --page "$page" --files "$output" --kind "$kind"; }

# part SECONDS NAME COMMAND...
part() {
    local limit=$(($1 * patience)) name=$2 left=$((seconds - SECONDS)) status=0
    shift 2
    printf '\n== %s (%d s)\n' "$name" "$SECONDS"
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 1 ]; then echo "no time is left"; failed+=("$name"); return; fi
    # A process that does not stop when it is asked to hangs: its status is 137.
    timeout --kill-after=10 "$limit" "$@" || status=$?
    if [ "$status" = 124 ] && [ -s "$output/$kind-$name.json" ]; then
        echo "cut off after $limit s"
        cut_off+=("$name")
    elif [ "$status" != 0 ]; then
        echo "$name ended with status $status"
        failed+=("$name")
    fi
    fill_page >/dev/null 2>&1
}

# measure SECONDS NAME OPTIONS...
measure() {
    local limit=$1 name=$2
    shift 2
    part "$limit" "$name" "$python" -m shipbench bench --all --parts "$name" --device "$device" --output "$output" \
        "${model[@]}" "$@"
}

# The limits follow from estimates for an H200, with 10 to 15 s for each process to start.
part 75 equality "$python" -m pytest -n 0 -p no:cacheprovider "${tests[@]}" --device "$device" \
    --outcomes "$output/$kind-equality.json"
measure 165 steps
measure 35 profile --precision bf16
measure 85 repeats
measure 60 end-to-end
measure 50 stacks --precision bf16

printf '\n== page (%d s)\n' "$SECONDS"
# The status of a part that was cut off does not tell of the differences that it had found.
fill_page || failed+=(page)
printf '\n== done (%d s)\n' "$SECONDS"
[ ${#cut_off[@]} -eq 0 ] || echo "cut off: ${cut_off[*]}"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
