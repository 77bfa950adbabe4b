"""Makes the files of this folder with NumPy and Pillow: the readers' truth comes from outside.

Usage: python make.py   (in this folder; NumPy 2, Pillow 10 or newer)

good_*: what must be read, with the expected pixels as .ppm beside pictures. bad_*: what must be
refused. Everything is seeded; bad files are made by breaking good ones at known places.
"""
import base64
import io
import json
import struct
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image

warnings.filterwarnings("ignore")
rng = np.random.default_rng(7)


def save_npy(name, array, version=(1, 0)):
    with open(name, "wb") as f:
        np.lib.format.write_array(f, array, version=version)


def npy_arrays():
    a = (np.arange(24).reshape(2, 3, 4) - 5).astype(np.float32) / 4
    save_npy("good_f32.npy", a)
    save_npy("good_f32_fortran.npy", np.asfortranarray(a))
    save_npy("good_f32_big.npy", a.astype(">f4"))
    save_npy("good_i16_big_fortran_v2.npy", np.asfortranarray((a * 4).astype(">i2")), (2, 0))
    save_npy("good_f16_v3.npy", a.astype(np.float16), (3, 0))
    save_npy("good_bool.npy", a > 0)
    save_npy("good_c64.npy", (a + 1j * a).astype(np.complex64))
    save_npy("good_scalar.npy", np.float64(2.5))
    save_npy("good_empty.npy", np.zeros((0, 3), np.int64))
    np.save("bad_object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save("bad_record.npy", np.zeros(2, dtype=[("a", "<f4")]))
    np.save("bad_text.npy", np.array(["ab"]))


def npz_archives():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    y = np.array([2, 0, 1, 2], dtype=np.int64)
    np.savez("good_stored.npz", x=x, y=y)
    np.savez_compressed("good_deflated.npz", x=np.asfortranarray(x), y=y)
    np.savez("good_one_hot.npz", x=x, labels=np.eye(3, dtype=np.float32)[y])

    def archive(name, members, method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(name, "w", method) as z:
            for member, data in members:
                z.writestr(zipfile.ZipInfo(member), data, method)

    def npy(array):
        out = io.BytesIO()
        np.save(out, array)
        return out.getvalue()

    archive("bad_twice.npz", [("x.npy", npy(x)), ("x.npy", npy(x + 1))])
    archive("bad_parent.npz", [("../x.npy", npy(x))])
    archive("bad_absolute.npz", [("/x.npy", npy(x))])
    archive("bad_bzip2.npz", [("x.npy", npy(x))], zipfile.ZIP_BZIP2)
    archive("bad_bomb.npz", [("x.npy", npy(np.zeros(17 << 20, np.uint8)))], zipfile.ZIP_DEFLATED)
    archive("bad_short.npz", [("x.npy", npy(x)[:-4])])

    good = bytearray(open("good_stored.npz", "rb").read())
    central = good.find(b"PK\x01\x02")
    encrypted = bytearray(good)
    encrypted[6] |= 1
    encrypted[central + 8] |= 1
    open("bad_encrypted.npz", "wb").write(encrypted)
    damaged = bytearray(good)
    damaged[good.find(b"}", 40) + 60] ^= 0x10
    open("bad_crc.npz", "wb").write(damaged)
    lie = bytearray(open("good_deflated.npz", "rb").read())
    central = lie.find(b"PK\x01\x02")
    # A ZIP64 extra field that claims 2^62 bytes.
    name_len, extra_len = struct.unpack_from("<HH", lie, central + 28)
    extra = struct.pack("<HHQ", 1, 8, 1 << 62)
    struct.pack_into("<I", lie, central + 24, 0xFFFFFFFF)
    struct.pack_into("<H", lie, central + 30, extra_len + len(extra))
    at = central + 46 + name_len + extra_len
    lie[at:at] = extra
    end = lie.rfind(b"PK\x05\x06")
    struct.pack_into("<I", lie, end + 12, struct.unpack_from("<I", lie, end + 12)[0] + len(extra))
    open("bad_zip64.npz", "wb").write(lie)


def picture(width=21, height=17):
    """Smooth colours with some noise, so that JPEG and filters have something to do."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x / (width - 1), y / (height - 1), (x + y) / (width + height - 2)], -1) * 255
    return np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


def save_truth(name, image):
    Image.fromarray(np.asarray(image)).convert("RGB").save(name + ".ppm")


def pictures():
    rgb = picture()
    image = Image.fromarray(rgb)
    image.save("good_rgb.png")
    save_truth("good_rgb.png", rgb)
    image.save("good_rgb.bmp")
    Image.fromarray(rgb).quantize(16).save("good_palette.bmp")
    save_truth("good_palette.bmp", Image.fromarray(rgb).quantize(16).convert("RGB"))
    palette = image.quantize(7)
    palette.save("good_palette.png", bits=4)
    save_truth("good_palette.png", palette.convert("RGB"))
    gray = image.convert("L")
    gray.save("good_gray.png")
    save_truth("good_gray.png", gray.convert("RGB"))
    gray.save("good_gray.pgm")
    bit = image.convert("1")
    bit.save("good_bit.png")
    save_truth("good_bit.png", bit.convert("RGB"))
    ramp = np.linspace(0, 255, rgb.shape[1]).astype(np.uint8)
    alpha = np.dstack([rgb, ramp[None].repeat(rgb.shape[0], 0)])
    Image.fromarray(alpha).save("good_alpha.png")
    over = alpha[..., :3] * (alpha[..., 3:] / 255) + np.array([255, 128, 0]) * (1 - alpha[..., 3:] / 255)
    save_truth("good_alpha.png", np.round(over).astype(np.uint8))
    write_png("good_rgb16.png", (rgb.astype(np.uint16) * 257), 16, 2)
    write_png("good_interlaced.png", rgb, 8, 2, interlace=True)
    frames = [Image.fromarray(picture()) for _ in range(2)]
    image.save("good_animated.png", save_all=True, append_images=frames)
    for name, options in {"good_420.jpg": {}, "good_progressive.jpg": {"progressive": True}}.items():
        image.save(name, quality=90, **options)
        save_truth(name, Image.open(name).convert("RGB"))
    gray.save("good_gray.jpg", quality=90)
    save_truth("good_gray.jpg", Image.open("good_gray.jpg").convert("RGB"))
    image.convert("CMYK").save("good_cmyk.jpg", quality=90)
    save_truth("good_cmyk.jpg", Image.open("good_cmyk.jpg").convert("RGB"))
    large = Image.fromarray(picture(64, 48))
    large.save("resize_source.ppm")
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
    for label, filter in filters.items():
        for w, h in ((20, 31), (90, 60), (7, 5)):
            large.resize((w, h), filter).save(f"resize_{label}_{w}x{h}.ppm")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(name, pixels, bits, color, interlace=False):
    """A PNG writer for what Pillow does not write: 16-bit RGB and Adam7."""
    height, width = pixels.shape[:2]
    raw = b""
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4)]
        passes += [(1, 0, 2, 2), (0, 1, 1, 2)]
    for x0, y0, dx, dy in passes:
        part = pixels[y0::dy, x0::dx]
        for row in part if part.shape[1] else []:
            raw += b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlace))
    with open(name, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        f.write(chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def bad_pictures():
    def header_only(name, width, height):
        data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        with open(name, "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", data))
            f.write(chunk(b"IDAT", b"x\x9c\x03\0\0\0\0\x01") + chunk(b"IEND", b""))

    header_only("bad_wide.png", (1 << 31) - 1, 1)
    header_only("bad_wider.png", 1 << 31, 1)
    header_only("bad_mpixels.png", 65000, 65000)
    header_only("bad_no_pixels.png", 21, 17)
    good = open("good_rgb.png", "rb").read()
    open("bad_truncated.png", "wb").write(good[:-40])
    broken = bytearray(good)
    broken[len(good) // 2] ^= 0x55
    open("bad_crc.png", "wb").write(broken)
    jpeg = open("good_420.jpg", "rb").read()
    open("bad_truncated.jpg", "wb").write(jpeg[:-30])
    frame = jpeg.find(b"\xff\xc0")
    huge = bytearray(jpeg)
    struct.pack_into(">HH", huge, frame + 5, 65000, 65000)
    open("bad_mpixels.jpg", "wb").write(huge)
    open("bad_short.ppm", "wb").write(b"P6 3 3 255\n" + bytes(26))
    open("bad_huge.ppm", "wb").write(b"P6 999999999 999999999 255\n")
    open("bad_size.bmp", "wb").write(open("good_rgb.bmp", "rb").read()[:-5])


def polygraphy():
    def encode(array):
        out = io.BytesIO()
        np.save(out, array, allow_pickle=False)
        return {"array": base64.b64encode(out.getvalue()).decode(), "polygraphy_class": "ndarray"}

    entries = [
        {"a": encode(np.full((2, 3), i, np.float32)), "b": encode(np.array([i], np.int64))}
        for i in range(3)
    ]
    json.dump(entries, open("good_polygraphy.json", "w"), indent=4)
    outputs = []
    for i in range(2):
        lazy = {"values": encode(np.full((1, 4), i, np.float32)), "polygraphy_class": "LazyArray"}
        outputs.append({"outputs": {"out": lazy}, "runtime": 0.5, "polygraphy_class": "IterationResult"})
    json.dump({"lst": [["r", outputs]], "polygraphy_class": "RunResults"}, open("good_polygraphy_results.json", "w"))
    json.dump([{"a": {"array": "gAJd", "polygraphy_class": "Tensor"}}], open("bad_polygraphy_tensor.json", "w"))
    json.dump([{"a": {"array": "not base64!", "polygraphy_class": "ndarray"}}], open("bad_polygraphy_base64.json", "w"))


npy_arrays()
npz_archives()
pictures()
bad_pictures()
polygraphy()
