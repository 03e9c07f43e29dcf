# ashlar::cuda with its kernels: machine code for compute capability 8.0 and for Hopper with its own instructions
# (9.0a), and PTX for what comes later. Which of them runs is chosen at run time.
set(ASHLAR_CUDA_ARCHITECTURES "80-real;90a-real;90-virtual" CACHE STRING "what CUDA kernels are compiled for")
set(CMAKE_CUDA_ARCHITECTURES ${ASHLAR_CUDA_ARCHITECTURES})
if(NOT CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
  set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
endif()
enable_language(CUDA)
find_package(CUDAToolkit 12.3 REQUIRED)

ashlar_add_library(ashlar_cuda cuda cuda/models cuda/models/common)
file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.cu)
set(hopper_kernels ${kernels})
list(FILTER kernels EXCLUDE REGEX /src/cuda/sm90/)
list(FILTER hopper_kernels INCLUDE REGEX /src/cuda/sm90/)
target_sources(ashlar_cuda PRIVATE ${kernels})
target_link_libraries(ashlar_cuda PRIVATE CUDA::cudart_static CUDA::cublasLt)
set(cuda_objects ashlar_cuda)
if(hopper_kernels)
  add_library(ashlar_cuda_sm90 OBJECT ${hopper_kernels})
  set_target_properties(ashlar_cuda_sm90 PROPERTIES CUDA_ARCHITECTURES 90a-real POSITION_INDEPENDENT_CODE ON)
  target_include_directories(ashlar_cuda_sm90 PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
  target_sources(ashlar_cuda PRIVATE $<TARGET_OBJECTS:ashlar_cuda_sm90>)
  list(APPEND cuda_objects ashlar_cuda_sm90)
endif()
foreach(target IN LISTS cuda_objects)
  # CMake 3.25 does not know that nvcc 13 has C++20.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-std=c++20 --expt-relaxed-constexpr -lineinfo>")
endforeach()

# The list of language models: src/cuda/models/<name>.cpp defines cuda_model_<name>.
ashlar_list_models(ashlar_cuda cuda/models CudaModel cuda_model)
