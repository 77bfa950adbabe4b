/* empty.c - CMake wants one source of its own in a library that is made of object files. */
typedef int kiln_empty_translation_unit;
