/* groups.c - options that several verbs have. */
#include "cli.h"

#define GROUP(name, shown) const opt_group name = {shown, name##_options, COUNT_OF(name##_options)}

static const opt group_common_options[] = {
    {.name = "format", .kind = OPT_CHOICE, .value = "table|json|csv", SHARED(format_name),
     .help = "how data is written to stdout [table]"},
    {.name = "log-level", .kind = OPT_CHOICE, .value = "error|warn|info|debug", SHARED(log_level_name),
     .help = "messages on stderr [info]"},
    {.name = "verbose", .letter = 'v', .kind = OPT_FLAG, SHARED(verbose), .help = "the same as --log-level debug"},
    {.name = "quiet", .letter = 'q', .kind = OPT_FLAG, SHARED(quiet), .help = "the same as --log-level error"},
    {.name = "dry-run", .kind = OPT_FLAG, SHARED(dry_run),
     .help = "check the options and the files named, then stop"},
    {.name = "help", .letter = 'h', .kind = OPT_FLAG, SHARED(help), .help = "this text"},
};
GROUP(group_common, "Common");

static const opt group_build_options[] = {
    {.name = "max-isa", .kind = OPT_TEXT, .value = "ISA", SHARED(max_isa),
     .help = "highest instruction set to use: portable, avx2, avx512, ... [the best]"},
    {.name = "off", .kind = OPT_LIST, .value = "NAME[,NAME]", SHARED(off),
     .help = "passes, kernels or fusions to leave out; `kiln inspect --off-names` lists them"},
    {.name = "override-shape", .kind = OPT_LIST, .value = "NAME:1x3x224x224", SHARED(override_shapes),
     .help = "replace the shape an input declares; ? keeps a dim dynamic, * in NAME matches anything"},
    {.name = "external-data-root", .kind = OPT_TEXT, .value = "DIR", SHARED(external_root),
     .help = "folder of external data [the model's own]"},
    {.name = "no-mmap", .kind = OPT_FLAG, SHARED(no_mmap), .help = "read files into memory instead of mapping them"},
    {.name = "verify", .kind = OPT_FLAG, SHARED(verify),
     .help = "check the hashes of an engine's weights and of external data"},
};
GROUP(group_build, "Building and loading");

static const opt group_input_options[] = {
    {.name = "input", .letter = 'i', .kind = OPT_MANY, .value = "[NAME=]FILE", SHARED(inputs),
     .help = ".npy .npz .pb .bin .png .jpg .bmp .ppm or a folder; missing inputs are generated"},
    {.name = "shape", .kind = OPT_LIST, .value = "NAME:1x3x224x224", SHARED(shapes),
     .help = "shape of a generated input"},
    {.name = "seed", .kind = OPT_INT, .value = "N", SHARED(seed), .help = "of generated inputs [1]"},
    {.name = "range", .kind = OPT_LIST, .value = "MIN,MAX", SHARED(range),
     .help = "of generated inputs [floats 0,1; integers 0 or 1]"},
};
GROUP(group_input, "Inputs");

static const opt group_picture_options[] = {
    {.name = "resize", .kind = OPT_KEY, .value = "WxH|S|letterbox:WxH", SHARED(preprocess),
     .help = "to a size, or the shorter side to S [none]"},
    {.name = "interp", .kind = OPT_KEY, .value = "KIND", SHARED(preprocess),
     .help = "bilinear, bicubic, bilinear-plain, bicubic-plain, nearest [bilinear]"},
    {.name = "pad", .kind = OPT_KEY, .value = "0..255", SHARED(preprocess), .help = "letterbox fill [0]"},
    {.name = "pad-at", .kind = OPT_KEY, .value = "center|top-left", SHARED(preprocess),
     .help = "where a letterboxed picture lies [center]"},
    {.name = "crop", .kind = OPT_KEY, .value = "WxH|S", SHARED(preprocess), .help = "from the centre [none]"},
    {.name = "color", .kind = OPT_KEY, .value = "rgb|bgr|gray", SHARED(preprocess), .help = "channels [rgb]"},
    {.name = "scale", .kind = OPT_KEY, .value = "X", SHARED(preprocess),
     .help = "multiply by a number or fraction such as 1/255 [1]"},
    {.name = "mean", .kind = OPT_KEY, .value = "X[,X,X]", SHARED(preprocess),
     .help = "subtract, after scaling [0]"},
    {.name = "std", .kind = OPT_KEY, .value = "X[,X,X]", SHARED(preprocess), .help = "then divide by [1]"},
    {.name = "layout", .kind = OPT_KEY, .value = "nchw|nhwc", SHARED(preprocess), .help = "[nchw]"},
    {.name = "image-dtype", .kind = OPT_KEY, .value = "float32|uint8", SHARED(preprocess), .help = "[float32]"},
};
GROUP(group_picture, "Pictures");

static const opt group_tolerance_options[] = {
    {.name = "atol", .kind = OPT_NUMBER, .value = "X", SHARED(atol), .min = 0,
     .help = "every element within atol + rtol * |expected|"},
    {.name = "rtol", .kind = OPT_NUMBER, .value = "X", SHARED(rtol), .min = 0, .help = "see --atol"},
    {.name = "range-tol", .kind = OPT_NUMBER, .value = "X", SHARED(range_tol), .min = 0,
     .help = "largest error over the expected output's range [1e-4 if no other bound is given]"},
    {.name = "cos", .kind = OPT_NUMBER, .value = "X", SHARED(min_cosine), .min = 0, .help = "least cosine"},
    {.name = "sqnr", .kind = OPT_NUMBER, .value = "DB", SHARED(min_sqnr_db), .min = 0,
     .help = "least signal to quantization-noise ratio"},
    {.name = "top1", .kind = OPT_NUMBER, .value = "SHARE", SHARED(min_top1), .min = 0,
     .help = "least share of rows with the same largest element"},
};
GROUP(group_tolerance, "When outputs count as equal");
