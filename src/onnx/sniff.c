/* sniff.c - recognises what people mistake for ONNX files. */
#include "onnx/sniff.h"

#include <string.h>

static const struct {
    size_t at;
    const char *magic;
    const char *kind, *hint;
} kinds[] = {
    {0, "PK\x03\x04", "a ZIP archive (a PyTorch checkpoint or an .npz, perhaps)",
     "export the model to ONNX, or unpack the archive"},
    {0, "version https://git-lfs", "a git-lfs pointer, not the file it stands for",
     "fetch the file itself with `git lfs pull`"},
    {0, "<!DOCTYPE", "an HTML page", "download the file itself instead of its page"},
    {0, "<!doctype", "an HTML page", "download the file itself instead of its page"},
    {0, "<html", "an HTML page", "download the file itself instead of its page"},
    {0, "\x1f\x8b", "gzip-compressed", "unpack it first"},
    {0, "\x89HDF", "an HDF5 file (Keras, perhaps)", "convert the model to ONNX first"},
    {0, "\x80\x02", "a Python pickle", "export the model to ONNX first"},
    {0, "\x80\x04", "a Python pickle", "export the model to ONNX first"},
    {4, "TFL3", "a TensorFlow Lite model", "convert the model to ONNX first"},
    {4, "ORTM", "an ONNX Runtime model (.ort)", "use the .onnx file it was made from"},
};

enum { TEXT_PROBE = 64 };

/* A model begins with a tag and a length, which as text would be a line feed, then a letter's worth
 * of bytes and so on: its first bytes are never all printable. */
static bool is_text(const uint8_t *p, size_t n) {
    n = n < TEXT_PROBE ? n : TEXT_PROBE;
    for (size_t i = 0; i < n; i++) {
        bool space = p[i] == '\n' || p[i] == '\r' || p[i] == '\t';
        if (!space && (p[i] < 0x20 || p[i] > 0x7e)) {
            return false;
        }
    }
    return n >= 4;
}

kiln_status kiln_sniff(const void *bytes, size_t len, kiln_diag *diag) {
    if (len == 0) {
        return kiln_hint(diag, kiln_fail(diag, KILN_F_NOT_ONNX, "the file is empty"),
                         "was its download or export cut off?");
    }
    for (size_t i = 0; i < KILN_COUNT_OF(kinds); i++) {
        size_t n = strlen(kinds[i].magic);
        if (len >= kinds[i].at + n &&
            memcmp((const char *)bytes + kinds[i].at, kinds[i].magic, n) == 0) {
            return kiln_hint(diag,
                             kiln_fail(diag, KILN_F_NOT_ONNX, "the file is %s", kinds[i].kind),
                             "%s", kinds[i].hint);
        }
    }
    if (is_text(bytes, len)) {
        return kiln_hint(
            diag, kiln_fail(diag, KILN_F_NOT_ONNX, "the file is text, a model is binary"),
            "a .pbtxt or .onnxtxt must be converted: onnx.parser or google.protobuf.text_format "
            "in Python read it, onnx.save writes the binary form");
    }
    return KILN_OK;
}
