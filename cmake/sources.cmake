# Which files make the library, and for which instruction sets the vector kernels are compiled.
#
#   KILN_SOURCES      everything but the vector kernels
#   KILN_SIMD_SOURCES src/backend/cpu/prims/*_simd.c, compiled once for each of KILN_ISAS with
#                     KILN_ISA=<name> and KILN_ISA_<name>=1
#   KILN_CLI_SOURCES  the command
set(KILN_SOURCES "")
foreach(folder base ir ops onnx pass quant data plan exec build engine flow report backend)
  file(GLOB_RECURSE found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${folder}/*.c)
  list(APPEND KILN_SOURCES ${found})
endforeach()
file(GLOB api CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/api*.c)
file(GLOB KILN_SIMD_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cpu/prims/*_simd.c)
file(GLOB KILN_CLI_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.c)
list(APPEND KILN_SOURCES ${api})
list(REMOVE_ITEM KILN_SOURCES "" ${KILN_SIMD_SOURCES})

# Kernels outside _simd.c (dispatch, packing helpers) live in prims/ too, with prims/'s warnings.
set(kernel_sources ${KILN_SOURCES})
list(FILTER kernel_sources INCLUDE REGEX "/backend/cpu/prims/")

set(KILN_ISAS portable)
set(KILN_ISA_FLAGS_portable "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND KILN_ISAS avx2 avx512)
  set(KILN_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(KILN_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
      -mprefer-vector-width=512)
endif()

# An object library that belongs to kiln_objects; nothing when there are no sources.
function(kiln_add_objects name)
  cmake_parse_arguments(ARG "" "" "SOURCES;OPTIONS;DEFINITIONS" ${ARGN})
  if(NOT ARG_SOURCES)
    return()
  endif()
  add_library(${name} OBJECT ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${name} PRIVATE ${KILN_DEFINITIONS} ${ARG_DEFINITIONS})
  target_compile_options(${name} PRIVATE ${KILN_WARNINGS} ${ARG_OPTIONS})
  target_link_libraries(${name} PRIVATE PkgConfig::KILN_DEPS Threads::Threads)
  target_sources(kiln_objects INTERFACE $<TARGET_OBJECTS:${name}>)
endfunction()

set_source_files_properties(${kernel_sources} PROPERTIES COMPILE_OPTIONS "${KILN_KERNEL_WARNINGS}")
