#!/usr/bin/env bash
# Installs into a scratch folder and builds a user's program against it in three ways: CMake package
# (shared and static), pkg-config shared, pkg-config static. Each must print the library's version.
# The examples are built both ways too, and run.
set -euo pipefail

prefix=$KILN_TMP/prefix
rm -rf "${KILN_TMP:?}"/*
cmake --install "$KILN_BUILD" --prefix "$prefix" >"$KILN_TMP/install.log"

version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$KILN_BUILD/CMakeCache.txt")
compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$KILN_BUILD/CMakeCache.txt")
sanitize=$(sed -n 's/^KILN_SANITIZE:[A-Z]*=//p' "$KILN_BUILD/CMakeCache.txt")
flags=${sanitize:+-fsanitize=$sanitize}
libdir=$(dirname "$(find "$prefix" -name libkiln.a)")

expect_version() {
    local printed
    printed=$("$@")
    [ "$printed" = "$version" ] || { echo "$* printed '$printed', expected '$version'"; exit 1; }
}

soname=$(readelf -d "$libdir/libkiln.so" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
[ "$soname" = "libkiln.so.${version%%.*}" ] || { echo "SONAME is '$soname'"; exit 1; }

cmake -S tests/abi/consumer -B "$KILN_TMP/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$compiler" -DCMAKE_C_FLAGS="$flags" >"$KILN_TMP/configure.log"
cmake --build "$KILN_TMP/consumer" >"$KILN_TMP/build.log" || { cat "$KILN_TMP/build.log"; exit 1; }
expect_version "$KILN_TMP/consumer/consumer_shared"
expect_version "$KILN_TMP/consumer/consumer_static"

export PKG_CONFIG_PATH=$libdir/pkgconfig
[ "$(pkg-config --modversion kiln)" = "$version" ]
# shellcheck disable=SC2046,SC2086
"$compiler" $flags tests/abi/consumer/main.c -o "$KILN_TMP/by_pkg_config" \
    $(pkg-config --cflags --libs kiln) "-Wl,-rpath,$libdir"
expect_version "$KILN_TMP/by_pkg_config"
# shellcheck disable=SC2046,SC2086
"$compiler" $flags tests/abi/consumer/main.c -o "$KILN_TMP/by_pkg_config_static" \
    $(pkg-config --cflags kiln) "$libdir/libkiln.a" \
    $(pkg-config --static --libs kiln | sed 's/ *-lkiln */ /')
expect_version "$KILN_TMP/by_pkg_config_static"
# expect_part PART COMMAND...: the command prints the part.
expect_part() {
    local printed
    printed=$("${@:2}") || { echo "${*:2} failed"; exit 1; }
    [[ $printed == *"$1"* ]] || { echo "${*:2} printed '$printed', without '$1'"; exit 1; }
}

# run_examples PREFIX: the three of them.
run_examples() {
    local digits=$PWD/examples/digits/digits.onnx
    expect_part 'row 0: class' "$1run_model" "$digits"
    expect_part '1 1 3.5 7' "$1build_graph"
    expect_part '2 contexts' "$1threads" "$digits" 2 10
}

run_examples "$KILN_TMP/consumer/example_"
for name in run_model build_graph threads; do
    # shellcheck disable=SC2046,SC2086
    "$compiler" $flags -std=c17 -Wall -Wextra "examples/$name.c" -o "$KILN_TMP/pc_$name" \
        $(pkg-config --cflags --libs kiln) -pthread "-Wl,-rpath,$libdir"
done
run_examples "$KILN_TMP/pc_"
echo "installed libraries of kiln $version link and run"
