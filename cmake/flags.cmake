# Language, warnings, hardening, sanitizers. Sets for the targets:
#   KILN_WARNINGS         all of our C
#   KILN_KERNEL_WARNINGS  appended for kernel files, which use compiler extensions and narrow freely
#   KILN_DEFINITIONS      all of our C
#   KILN_COVERAGE         appended for what a fuzzer watches: the library without the vector kernels
include(CheckCCompilerFlag)
include(CheckPIESupported)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
check_pie_supported(LANGUAGES C)

# Release: -O2 and no asserts; kernels raise themselves to -O3. Debug keeps the asserts.
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g -fno-omit-frame-pointer")

set(KILN_DEFINITIONS _GNU_SOURCE KILN_VERSION="${PROJECT_VERSION}")
set(KILN_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    -Wstrict-prototypes -Wmissing-prototypes)
set(KILN_KERNEL_WARNINGS -Wno-pedantic -Wno-conversion)
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
  list(APPEND KILN_KERNEL_WARNINGS -Wno-implicit-int-float-conversion)
endif()
if(KILN_WERROR)
  list(APPEND KILN_WARNINGS -Werror)
endif()

# Numerics: a*b+c is rounded twice unless a kernel asks for an fma by name, so that every compiler
# gives the same bits. errno after sqrtf and friends is never read. Nothing of -ffast-math.
add_compile_options(-ffp-contract=off -fno-math-errno)
# No path of the building machine in the objects.
add_compile_options(-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)

if(KILN_SANITIZE)
  add_compile_options(-fsanitize=${KILN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${KILN_SANITIZE})
endif()
if(KILN_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "KILN_FUZZ needs clang: set CC=clang")
  endif()
  set(KILN_COVERAGE -fsanitize=fuzzer-no-link)
endif()
if(KILN_FUZZ OR KILN_PLAIN_KERNELS)
  # Compilers take minutes over a sanitized kernel. Its tests put unmapped pages around every buffer.
  list(APPEND KILN_KERNEL_WARNINGS -fno-sanitize=all)
endif()

add_compile_options(-fstack-protector-strong)
add_link_options(-Wl,-z,relro,-z,now -Wl,-z,noexecstack)
if(CMAKE_BUILD_TYPE MATCHES "^Rel" AND NOT KILN_SANITIZE AND NOT KILN_FUZZ)
  # Distributions that fortify by default must not see the macro defined twice.
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()
