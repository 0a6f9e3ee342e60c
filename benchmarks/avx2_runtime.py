#!/usr/bin/env python3
"""Make a copy of the installed onnxruntime that sees no AVX-512, VNNI or AMX, and so runs its AVX2 kernels.

    python benchmarks/avx2_runtime.py TARGET
    PYTHONPATH=TARGET python your_program.py

TARGET is created; the interpreter must have onnxruntime and onnx installed. Every real ``cpuid`` instruction of the
copied libraries is replaced by two bytes that are invalid in 64-bit mode; a small C library in the copy catches the
SIGILL, runs ``cpuid`` and clears those feature bits. The copy's ``capi/__init__`` loads it, so that no LD_PRELOAD is
needed, and it runs at full speed. Needs x86-64 Linux, gcc and objdump. Exit status: 0 made or not needed, 1 failed, 2
cannot be made here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CPUID = b"\x0f\xa2"
MARK = b"\x06\x0e"  # push es; push cs: invalid in 64-bit mode, and nothing else that a compiler emits

HANDLER = r"""
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

static struct sigaction previous;

#define B(n) (1u << (n))

static void handler(int sig, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (info->si_code <= 0) return;  /* raise() by Python's faulthandler: the instruction runs again after it */
    const unsigned char *ip = (const unsigned char *)r[REG_RIP];
    if (ip[0] != 0x06 || ip[1] != 0x0e) {
        sigaction(SIGILL, &previous, NULL);  /* not ours: the instruction runs again under the previous action */
        return;
    }
    unsigned leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, sub, a, b, c, d);
    if (leaf == 7 && sub == 0) {
#ifdef KEEP_AVX512
        c &= ~B(11);
#else
        b &= ~(B(16) | B(17) | B(21) | B(26) | B(27) | B(28) | B(30) | B(31));  /* F DQ IFMA PF ER CD BW VL */
        c &= ~(B(1) | B(6) | B(11) | B(12) | B(14));                            /* VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
        d &= ~(B(2) | B(3) | B(8) | B(23));                                     /* 4VNNIW 4FMAPS VP2INTERSECT FP16 */
#endif
        d &= ~(B(22) | B(24) | B(25));                                          /* AMX */
    } else if (leaf == 7 && sub == 1) {
        a &= ~(B(4) | B(5) | B(21) | B(23));             /* AVX-VNNI AVX512-BF16 AMX-FP16 AVX-IFMA */
        d &= ~(B(4) | B(5) | B(8) | B(10) | B(19));      /* VNNI-INT8 NE-CONVERT AMX-COMPLEX VNNI-INT16 AVX10 */
    } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {    /* AMX and AVX10 details */
        a = b = c = d = 0;
    }
    r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, &previous);
}
"""

LOADER = """
import ctypes as _ctypes, os as _os  # Must be loaded before the patched library.
_cpuid = _ctypes.CDLL(_os.path.join(_os.path.dirname(__file__), "_cpuid_avx2.so"))
"""

# 255 * 127 twice is 64770; a pair added in saturating int16 gives 32767. A MatMul and a Conv, as QDQ graphs that fuse.
PROBE = r"""
import numpy as np, onnxruntime as ort
from onnx import TensorProto as T, helper as h, numpy_helper as nh
def run(op, x, w, **attributes):
    constants = dict(one=np.float32(1), so=np.float32(300), zu=np.uint8(0), zs=np.int8(0), w=w)
    steps = [("QuantizeLinear", ["x", "one", "zu"], "xq"), ("DequantizeLinear", ["xq", "one", "zu"], "xd"),
             ("DequantizeLinear", ["w", "one", "zs"], "wd"), (op, ["xd", "wd"], "y"),
             ("QuantizeLinear", ["y", "so", "zu"], "yq"), ("DequantizeLinear", ["yq", "so", "zu"], "z")]
    nodes = [h.make_node(kind, i, [o], **(attributes if kind == op else {})) for kind, i, o in steps]
    inputs, outputs = [h.make_tensor_value_info("x", T.FLOAT, x.shape)], [h.make_tensor_value_info("z", T.FLOAT, None)]
    g = h.make_graph(nodes, "g", inputs, outputs, [nh.from_array(a, n) for n, a in constants.items()])
    settings = ort.SessionOptions(); settings.intra_op_num_threads = 1; settings.log_severity_level = 3
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    s = ort.InferenceSession(m.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return float(s.run(None, {"x": x})[0].max())
w = np.zeros((8, 16), np.int8); w[:2] = 127
k = np.zeros((16, 8, 3, 3), np.int8); k[:, :2, 1, 1] = 127
matmul = run("MatMul", np.full((4, 8), 255, np.float32), w)
print("PROBE", ort.__version__, matmul, run("Conv", np.full((1, 8, 5, 5), 255, np.float32), k, pads=[1] * 4))
"""
EXACT, SATURATED = 216 * 300.0, 109 * 300.0  # 64770 and 32767 in steps of 300


class CannotMake(Exception):
    """Why no copy can be made on this machine."""


def cpu_flags() -> set[str]:
    """The CPU's features.

    Raises:
        CannotMake: this is not x86-64 Linux, or the CPU has no AVX2.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64") or sys.maxsize < 2**32:
        raise CannotMake("this needs 64-bit x86 Linux; there are no AVX2 kernels here")
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    if "avx2" not in flags:
        raise CannotMake("this CPU has no AVX2")
    return flags


def is_needed(flags: set[str]) -> bool:
    """Whether the installed onnxruntime would run other kernels than those for AVX2."""
    return bool(flags & {"avx512f", "avx512_vnni", "avx_vnni"})


def make(target: Path, *, keep_avx512: bool = False, force: bool = False) -> dict[str, int]:
    """Put the copy into ``target``; how many instructions were replaced, by library.

    Raises:
        CannotMake: a tool is missing, onnxruntime is not installed, or the copy is there already.
    """
    if missing := [tool for tool in ("gcc", "objdump") if not shutil.which(tool)]:
        raise CannotMake(f"this needs {' and '.join(missing)}")
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise CannotMake(f"onnxruntime is not installed for {sys.executable}")
    source = Path(next(iter(spec.submodule_search_locations)))
    if (source / "capi" / "_cpuid_avx2.so").exists():
        raise CannotMake(f"{source} is itself such a copy; unset PYTHONPATH")
    copy = target.resolve() / "onnxruntime"
    if copy.exists() and not force:
        raise CannotMake(f"{copy} is there; --force replaces it")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "libonnxruntime.so.*"))
    counts = {path.name: patch(path) for path in sorted((copy / "capi").glob("*.so*"))}
    if not any(counts.values()):
        raise CannotMake(f"there is no cpuid instruction in {', '.join(counts)}")
    switch = ["-DKEEP_AVX512"] if keep_avx512 else []
    library = copy / "capi" / "_cpuid_avx2.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", *switch, "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=HANDLER, text=True, check=True)
    with (copy / "capi" / "__init__.py").open("a") as f:
        f.write(LOADER)
    return {name: n for name, n in counts.items() if n}


def patch(path: Path) -> int:
    """Replace the cpuid instructions of a shared library; how many there were.

    objdump tells the instruction from the same two bytes elsewhere.
    """
    data = bytearray(path.read_bytes())
    if data[:5] != b"\x7fELF\x02" or CPUID not in data:
        return 0
    segments = list(_code(data))
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listing:
        lines = listing.stdout or ()
        addresses = [int(line.partition(":")[0], 16) for line in lines if line.rstrip().endswith("\tcpuid")]
    if listing.returncode:
        raise CannotMake(f"objdump failed on {path}")
    for address in addresses:
        at = next(o + address - a for a, o, n in segments if a <= address < a + n)
        if data[at : at + 2] != CPUID:
            raise CannotMake(f"{path.name} has no cpuid at {address:#x}")
        data[at : at + 2] = MARK
    path.write_bytes(data)
    return len(addresses)


def _code(data: bytearray) -> Iterator[tuple[int, int, int]]:
    """Address, file offset and size of each executable segment of a 64-bit little-endian ELF file."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, flags, at, address, _, length = struct.unpack_from("<IIQQQQ", data, offset + i * size)
        if kind == 1 and flags & 1:
            yield address, at, length


def environment(target: Path) -> dict[str, str]:
    """The environment in which a child process runs the copy."""
    paths = [str(target.resolve()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def probe(target: Path | None = None) -> tuple[str, float, float]:
    """Version, MatMul's and Conv's result in a fresh interpreter, with the copy or, without a target, as installed."""
    child = environment(target) if target else dict(os.environ)
    done = subprocess.run([sys.executable, "-c", PROBE], env=child, cwd="/", capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("PROBE")), None)
    if line is None:
        raise CannotMake(f"the probe did not run ({done.returncode}):\n{done.stderr[-2000:]}")
    _, version, matmul, conv = line.split()
    return version, float(matmul), float(conv)


def check(target: Path, flags: set[str]) -> bool:
    """Whether the copy saturates, as AVX2 kernels do, and the installed runtime does not where the CPU has VNNI."""
    native, patched = probe(), probe(target)
    for name, (version, matmul, conv) in (("installed", native), ("copy", patched)):
        print(f"{name}: onnxruntime {version}, MatMul {matmul:g}, Conv {conv:g}", end=" ")
        print(f"(exact {EXACT:g}, saturated {SATURATED:g})")
    exact = native[1:] == (EXACT, EXACT) or not flags & {"avx512_vnni", "avx_vnni"}
    return patched[1:] == (SATURATED, SATURATED) and exact


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--keep-avx512", action="store_true", help="hide VNNI and AMX only")
    parser.add_argument("--force", action="store_true", help="replace TARGET/onnxruntime if it is there")
    args = parser.parse_args()
    try:
        flags = cpu_flags()
        if not is_needed(flags):
            print("nothing to do: the installed onnxruntime runs its AVX2 kernels on this CPU")
            return 0
        counts = make(args.target, keep_avx512=args.keep_avx512, force=args.force)
        if not check(args.target, flags):
            print("failed: the results are not those expected")
            return 1
    except CannotMake as e:
        print(f"not made: {e}")
        return 2
    print("patched:", ", ".join(f"{name} {n}" for name, n in counts.items()), "cpuid instructions")
    print(f"run with: PYTHONPATH={args.target.resolve()} {sys.executable} ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
