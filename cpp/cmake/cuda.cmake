# Whether to build the CUDA kernels: sets dgemma_use_cuda, and enables the language where it is on.
#
# AUTO builds them where they would be used: where ggml brings a CUDA backend (which leaves the logits on the card) and
# nvcc works. ON builds them in any case, to prove that they compile. OFF, or nothing found: src/cuda/no_cuda.cpp.
set(DGEMMA_CUDA AUTO CACHE STRING "dgemma's own CUDA kernels: AUTO, ON or OFF")
set_property(CACHE DGEMMA_CUDA PROPERTY STRINGS AUTO ON OFF)

set(dgemma_use_cuda OFF)
get_filename_component(ggml_folder "${GGML_LIBRARY}" DIRECTORY)
find_library(DGEMMA_GGML_CUDA ggml-cuda HINTS "${ggml_folder}" NO_DEFAULT_PATH)
if(DGEMMA_CUDA STREQUAL "AUTO" AND NOT DGEMMA_GGML_CUDA)
  message(STATUS "dgemma: no CUDA kernels, for ggml has no CUDA backend (-DDGEMMA_CUDA=ON builds them anyway)")
elseif(DGEMMA_CUDA)
  include(CheckLanguage)
  check_language(CUDA) # a small project of its own: an nvcc that does not work is none
  if(CMAKE_CUDA_COMPILER)
    set(dgemma_use_cuda ON)
  elseif(DGEMMA_CUDA STREQUAL "AUTO")
    message(WARNING "dgemma: ggml has a CUDA backend but no working nvcc was found, so dgemma's own kernels are left "
                    "out and every step copies its logits to the host; put nvcc on PATH, or set CUDACXX, and reinstall")
  else()
    message(FATAL_ERROR "dgemma: DGEMMA_CUDA is ON but no working nvcc was found; put it on PATH or set CUDACXX")
  endif()
endif()

if(dgemma_use_cuda)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static) # the driver is looked for at run time, so machines without one can import
  set(default_architectures OFF)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(default_architectures ON)
    set(CMAKE_CUDA_ARCHITECTURES 86) # RTX 30
  endif()
  enable_language(CUDA)
  # Machine code for each, and PTX, which drivers compile for newer cards. An nvcc refuses those that it does not know.
  if(default_architectures AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 89 90) # RTX 40; H100 and H200
  endif()
  if(default_architectures AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 120) # RTX 50
  endif()
  find_package(CUDAToolkit REQUIRED)
  message(STATUS "dgemma: CUDA kernels for ${CMAKE_CUDA_ARCHITECTURES} (CUDA ${CUDAToolkit_VERSION})")
endif()
