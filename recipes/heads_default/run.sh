#!/bin/sh
# Find the heads of the built-in model, and put them into the package: sh recipes/heads_default/run.sh WORK
set -eu
work=${1:?usage: run.sh WORK}
mkdir -p "$work"
wherein heads find --out "$work/heads.json" --by agreement --pool 600 --trials 5 --seed 0
cp "$work/heads.json" "$(dirname "$0")/../../src/wherein/methods/heads/found/default.json"
