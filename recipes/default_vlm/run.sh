#!/bin/sh
# Rebuild the default VLM's own weights and the object bank from the registries:
# sh recipes/default_vlm/run.sh WORK [OPTIONS of train.py]
set -eu
work=${1:?usage: run.sh WORK [OPTIONS of train.py]}
shift
home=$(dirname "$0")
python "$home/build_bank.py" --work "$work"
python "$home/build_vocabulary.py" --extra "$work/extra_bank"
python "$home/train.py" "$@" --work "$work" --extra "$work/extra_bank" --backgrounds "$work/backgrounds" \
    --out "$work/default.safetensors"
python "$home/measure.py" --weights "$work/default.safetensors" --backgrounds "$work/backgrounds" --card "$work/README.md"
package=$home/../../src/wherein/vlm/weights
for file in default.safetensors README.md; do
    cat "$work/$file" > "$package/$file.part"  # for all to read, where safetensors writes for the owner alone
    mv "$package/$file.part" "$package/$file"
done
