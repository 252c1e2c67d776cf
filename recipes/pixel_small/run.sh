#!/bin/sh
# Train a small pixel-aligned model and measure it: sh recipes/pixel_small/run.sh WORK [OPTIONS of train.py].
# First: python recipes/default_vlm/build_bank.py --work WORK (not the run.sh beside it, which replaces the model's weights).
set -eu
work=${1:?usage: run.sh WORK [OPTIONS of train.py]}
shift
home=$(dirname "$0")
python "$home/train.py" --out "$work/pixel" --objects "$work/extra_bank" --backgrounds "$work/backgrounds" "$@"
