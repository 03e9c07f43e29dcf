# SPDX-License-Identifier: Apache-2.0
# For the scripts beside it: what has to be installed, and how. Source it with the repository as working directory.

# Debian 12's names. The libraries and the tools that build them, then what only tests and benchmarks need.
packages=(
  g++ cmake ninja-build pkg-config
  libhwy-dev libdnnl-dev ocl-icd-opencl-dev libeigen3-dev   # kernels; dense layers (oneDNN asks for OpenCL), fallback
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev           # checkpoints and tokenizers
  libzip-dev libpng-dev libjpeg-dev                         # torch checkpoints, pictures
  libcli11-dev                                              # command lines of the examples
)
test_packages=(libgtest-dev libbenchmark-dev)

say() { printf '\n== %s\n' "$*"; }

# install_packages NAME...: what is not there yet, asking nothing. Without apt or the right to use it, says what is needed.
install_packages() {
  local name missing=()
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "There is no apt-get here. These packages (by their names in Debian) must be installed: $*" >&2
    return
  fi
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    root=(sudo -n)
    if ! sudo -n true 2>/dev/null; then
      echo "These packages are missing and cannot be installed from here. As root:" >&2
      echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
  fi
  say "Installing ${missing[*]}"
  local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)
  "${apt[@]}" update
  "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

# The option for the CUDA layer where there is a compiler for it (no GPU is needed to build it).
cuda_option() {
  if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    echo -DASHLAR_CUDA=ON
  else
    echo "There is no nvcc here: the CUDA layer is not built." >&2
    echo -DASHLAR_CUDA=OFF
  fi
}

# build PRESET [CMAKE_OPTION...]: into build/PRESET, with every core.
build() {
  local preset=$1
  shift
  mkdir -p build
  cmake --preset "$preset" "$@" >"build/$preset.log" 2>&1 || { cat "build/$preset.log"; exit 1; }
  cmake --build --preset "$preset" --parallel "$(nproc)"
}
