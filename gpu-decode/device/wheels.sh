#!/usr/bin/env bash
# Downloads what peers.py needs for Python 3.12 on x86-64, for a machine without a network: wheels.sh [FOLDER]
# run.sh installs what it finds in wheels/ beside it.
#     CMZ_CUDA      12 or 13 (the default): the driver's CUDA version
#     CMZ_NO_CUPY   set: leaves CuPy and NumPy out, 90 of 120 MB, for machines that have them
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/device/wheels}
cuda=${CMZ_CUDA:-13}
# Of DFloat11 only the PTX is used: what its package requires (transformers and more) is left out.
wheels=(dfloat11==0.5.0 "nvidia-nvcomp-cu$cuda==6.0.0.12" "nvidia-libnvcomp-cu$cuda==6.0.0.12")
[ -n "${CMZ_NO_CUPY:-}" ] || wheels+=("cupy-cuda${cuda}x==14.2.0" cuda-pathfinder==1.9.0 numpy==2.5.2)

platforms=()
for glibc in _2_17 _2_24 _2_27 _2_28 2014; do
    platforms+=(--platform "manylinux${glibc}_x86_64")
done
python3 -m pip download --quiet --disable-pip-version-check --dest "$out" --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp "${platforms[@]}" "${wheels[@]}"
du -sh "$out"
