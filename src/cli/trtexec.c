/* trtexec.c - what becomes of trtexec's flags. docs/trtexec.md is made from this table. */
#include <string.h>

#include "cli.h"

static const char builder[] = "Kiln's builder has no such knob";
static const char gpu[] = "it is about GPUs; this runs on the CPU";
static const char precision[] =
    "`kiln build` takes `--int8`, `--bf16`, `--fp16` and `--precision`; a model's own precisions "
    "run as they are";
static const char profiles[] =
    "with the other two as `--dynamic-shape`; one left out is taken from them";

static const trt_flag flags[] = {
    {"onnx", TRT_ACCEPTED, TRT_OPERAND, NULL, "the model"},
    {"loadEngine", TRT_ACCEPTED, TRT_OPERAND, NULL, "the engine"},
    {"saveEngine", TRT_ACCEPTED, TRT_OPTION, "output", "`--output`"},
    {"shapes", TRT_ACCEPTED, TRT_OPTION, "shape", "`--shape`: shapes of generated inputs"},
    {"minShapes", TRT_ACCEPTED, TRT_MIN_SHAPES, NULL, profiles},
    {"optShapes", TRT_ACCEPTED, TRT_OPT_SHAPES, NULL, profiles},
    {"maxShapes", TRT_ACCEPTED, TRT_MAX_SHAPES, NULL, profiles},
    {"loadInputs", TRT_ACCEPTED, TRT_PAIRS, "input", "`--input name=file`, any kind of file"},
    {"batch", TRT_ACCEPTED, TRT_OPTION, "batch", "`--batch`"},
    {"iterations", TRT_ACCEPTED, TRT_OPTION, "iterations", "the same"},
    {"warmUp", TRT_ACCEPTED, TRT_OPTION, "warm-up", "`--warm-up`, milliseconds"},
    {"duration", TRT_ACCEPTED, TRT_OPTION, "duration", "the same, seconds"},
    {"idleTime", TRT_ACCEPTED, TRT_OPTION, "idle", "`--idle`, milliseconds"},
    {"percentile", TRT_ACCEPTED, TRT_OPTION, "percentile", "the same"},
    {"exportTimes", TRT_ACCEPTED, TRT_OPTION, "export-times", "`--export-times`, the same JSON"},
    {"exportProfile", TRT_ACCEPTED, TRT_OPTION, "export-profile",
     "`--export-profile`, the same JSON"},
    {"exportOutput", TRT_ACCEPTED, TRT_OPTION, "export-output", "`--export-output`, the same JSON"},
    {"dumpProfile", TRT_ACCEPTED, TRT_OPTION, "profile", "`--profile`"},
    {"dumpOutput", TRT_ACCEPTED, TRT_OPTION, "print-outputs", "`--print-outputs`"},
    {"skipInference", TRT_ACCEPTED, TRT_OPTION, "skip-inference", "`--skip-inference`"},
    {"separateProfileRun", TRT_ACCEPTED, TRT_NOTHING, NULL,
     "layers are always timed in runs of their own"},
    {"noDataTransfers", TRT_ACCEPTED, TRT_NOTHING, NULL, "there are none on the CPU"},
    {"noTF32", TRT_ACCEPTED, TRT_NOTHING, NULL, "FP32 is computed in FP32"},
    {"cpuOnly", TRT_ACCEPTED, TRT_NOTHING, NULL, "it always is"},
    {"stronglyTyped", TRT_ACCEPTED, TRT_NOTHING, NULL, "precisions are the model's"},
    {"includeDataTransfers", TRT_IGNORED, TRT_NOTHING, NULL, "there are none on the CPU"},
    {"useSpinWait", TRT_IGNORED, TRT_NOTHING, NULL, "idle workers spin for a while anyway"},
    {"useCudaGraph", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"device", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"useManagedMemory", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"persistentCacheRatio", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"maxAuxStreams", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"exposeDMA", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"useProfile", TRT_IGNORED, TRT_NOTHING, NULL, "an engine has one profile"},
    {"memPoolSize", TRT_IGNORED, TRT_NOTHING, NULL, "there are no pools; see `--workspace`"},
    {"workspace", TRT_ACCEPTED, TRT_OPTION, "workspace", "the same, MiB"},
    {"builderOptimizationLevel", TRT_ACCEPTED, TRT_OPTION, "opt-level", "`--opt-level`"},
    {"avgTiming", TRT_IGNORED, TRT_NOTHING, NULL, builder},
    {"minTiming", TRT_IGNORED, TRT_NOTHING, NULL, builder},
    {"maxTactics", TRT_IGNORED, TRT_NOTHING, NULL, builder},
    {"tacticSources", TRT_IGNORED, TRT_NOTHING, NULL, builder},
    {"tilingOptimizationLevel", TRT_IGNORED, TRT_NOTHING, NULL, builder},
    {"timingCacheFile", TRT_ACCEPTED, TRT_OPTION, "timing-cache", "`--timing-cache`, another form"},
    {"noBuilderCache", TRT_ACCEPTED, TRT_NOTHING, NULL, "there is none but --timing-cache"},
    {"profilingVerbosity", TRT_IGNORED, TRT_NOTHING, NULL, "engines always know their layers"},
    {"avgRuns", TRT_IGNORED, TRT_NOTHING, NULL, "every run is kept: see --export-times"},
    {"nvtxMode", TRT_IGNORED, TRT_NOTHING, NULL, gpu},
    {"sleepTime", TRT_REFUSED, TRT_NOTHING, NULL, "use --idle for a pause between runs"},
    {"exportLayerInfo", TRT_REFUSED, TRT_NOTHING, NULL,
     "use `kiln inspect --layers --format json`"},
    {"dumpLayerInfo", TRT_REFUSED, TRT_NOTHING, NULL, "use `kiln inspect --layers`"},
    {"infStreams", TRT_ACCEPTED, TRT_OPTION, "streams", "`--streams`"},
    {"streams", TRT_ACCEPTED, TRT_OPTION, "streams", "the same"},
    {"fp16", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"bf16", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"int8", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"fp8", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"int4", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"best", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"calib", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"precisionConstraints", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"layerPrecisions", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"layerOutputTypes", TRT_REFUSED, TRT_NOTHING, NULL, precision},
    {"inputIOFormats", TRT_REFUSED, TRT_NOTHING, NULL,
     "inputs and outputs are as the model declares them"},
    {"outputIOFormats", TRT_REFUSED, TRT_NOTHING, NULL,
     "inputs and outputs are as the model declares them"},
    {"sparsity", TRT_REFUSED, TRT_NOTHING, NULL, "weights are dense"},
    {"plugins", TRT_REFUSED, TRT_NOTHING, NULL, "TensorRT's plugins are GPU code"},
    {"staticPlugins", TRT_REFUSED, TRT_NOTHING, NULL, "TensorRT's plugins are GPU code"},
    {"dynamicPlugins", TRT_REFUSED, TRT_NOTHING, NULL, "TensorRT's plugins are GPU code"},
    {"useDLACore", TRT_REFUSED, TRT_NOTHING, NULL, "there is no DLA"},
    {"allowGPUFallback", TRT_REFUSED, TRT_NOTHING, NULL, "there is no DLA"},
    {"refit", TRT_REFUSED, TRT_NOTHING, NULL, "build again: it takes no longer"},
    {"stripWeights", TRT_REFUSED, TRT_NOTHING, NULL, "engines hold their weights"},
    {"versionCompatible", TRT_REFUSED, TRT_NOTHING, NULL,
     "`kiln build --portable` keeps what a rebuild needs"},
    {"hardwareCompatibilityLevel", TRT_REFUSED, TRT_NOTHING, NULL,
     "use `kiln build --portable` or --max-isa"},
    {"markDebug", TRT_REFUSED, TRT_NOTHING, NULL, "use `kiln run --mark NAME`"},
    {"saveDebugTensors", TRT_REFUSED, TRT_NOTHING, NULL,
     "use `kiln run --mark NAME --output-dir DIR`"},
    {"loadRefOutputs", TRT_REFUSED, TRT_NOTHING, NULL, "use `kiln compare`"},
};

const trt_flag *trt_get(size_t i) {
    return i < COUNT_OF(flags) ? &flags[i] : NULL;
}

const trt_flag *trt_find(const char *name, size_t len) {
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, name, len) == 0) {
            return &flags[i];
        }
    }
    return NULL;
}
