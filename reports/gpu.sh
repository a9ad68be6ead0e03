#!/usr/bin/env bash
# Measure everything that a GPU is asked for, in at most eight minutes, with random weights and without a network:
#   reports/gpu.sh [--device cuda|cpu] [--output DIR] [--page FILE] [--tiny]
# Run it in an environment that has torch and shipbench. Each part runs in its own process with its own time limit and
# writes its file row by row, so a part that is cut off keeps what it has. --tiny takes two methods, and a model that a
# CPU trains in seconds. The exit status is 1 if a part failed, was cut off or found a difference.
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
mkdir -p "$output"
failed=()

# part SECONDS NAME COMMAND...
part() {
    local limit=$1 name=$2
    shift 2
    printf '\n== %s (%d s)\n' "$name" "$SECONDS"
    timeout --kill-after=5 $((limit * patience)) "$@" || { echo "$name ended with status $?"; failed+=("$name"); }
}

part 80 equality python -m pytest -n 0 -p no:cacheprovider "${tests[@]}" --device "$device" \
    --outcomes "$output/$kind-equality.json"
for limit_and_name in 80:repeats 165:steps 35:profile 50:end-to-end 50:stacks; do
    name=${limit_and_name#*:}
    part "${limit_and_name%%:*}" "$name" python -m shipbench bench --all --parts "$name" --device "$device" \
        --output "$output" "${model[@]}"
done
part 10 table python -m shipbench.bench.table --page "$page" --files "$output" --kind "$kind"

printf '\n== done (%d s)\n' "$SECONDS"
[ ${#failed[@]} -eq 0 ] || { echo "failed or cut off: ${failed[*]}"; exit 1; }
