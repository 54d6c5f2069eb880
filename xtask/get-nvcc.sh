#!/bin/sh
# Installs the CUDA compiler that the checked-in PTX is made with into DIR, and prints the lines that make it known:
#     eval "$(sh xtask/get-nvcc.sh target/nvcc)"
# Needs Python with venv, and a host C++ compiler to use it; no GPU, no root. About 110 MB.
#     --old-ptxas   also the assembler of CUDA 12.0, to check what old drivers take (20 MB)
#     --nvdisasm    also the disassembler, for `cargo xtask sass` (5 MB)
set -eu
usage="usage: get-nvcc.sh DIR [--old-ptxas] [--nvdisasm]"
dir=${1:?"$usage"}
shift
[ -x "$dir/bin/python" ] || python3 -m venv "$dir" >&2
pip() { "$dir/bin/python" -m pip --quiet --disable-pip-version-check install --only-binary=:all: "$@" >&2; }

# nvcc, cicc and libdevice, its own headers, cuda_runtime.h, and what cuda_fp16.h includes.
pip nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
packages=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "export CMZ_NVCC='$packages/nvidia/cu13/bin/nvcc'"

for option in "$@"; do
    case $option in
    --old-ptxas)
        pip --no-deps --target "$dir/old" nvidia-cuda-nvcc-cu12==12.0.140
        echo "export CMZ_PTXAS_OLD='$(find "$(cd "$dir" && pwd)/old" -path '*/bin/ptxas')'"
        ;;
    --nvdisasm)
        # Of a later release: there is no package of 13.0's, and a later one reads its files.
        pip --no-deps --target "$dir/nvdisasm" nvidia-cuda-nvdisasm==13.5.37
        echo "export CMZ_NVDISASM='$(find "$(cd "$dir" && pwd)/nvdisasm" -path '*/bin/nvdisasm')'"
        ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
    esac
done
