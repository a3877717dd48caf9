"""Builds the native kernels where a compiler and the headers of torch are found.

Without them, the package is installed without native kernels. The kernels are bound through the
stable ABI of torch, so the build needs only headers: those of the torch that is installed in the
environment. They are looked up there because an isolated build cannot import torch.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = [
    "csrc/bind.cpp",
    "csrc/kernels_portable.cpp",
    "csrc/kernels_avx2.cpp",
    "csrc/kernels_avx512.cpp",
]
REMEDY = (
    "thinned: built without its native kernels ({why}); dropout will run in torch operations, "
    "which are slower. To get them, install torch and a C++17 compiler first, then: "
    "pip install --force-reinstall --no-deps thinned"
)


def torch_home() -> Path | None:
    """Return the folder of the installed torch, or None.

    It is that of this interpreter, or of the environment for which an isolated build runs.
    """
    for path in [*sys.path, *(sysconfig.get_path(name) for name in ("purelib", "platlib"))]:
        home = Path(path or ".") / "torch"
        if (home / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
            return home
    return None


def obstacle() -> str:
    """Return why the kernels cannot be built; empty where they can."""
    if torch_home() is None:
        return "torch >= 2.10 is not installed"
    chosen = [os.environ[name].split()[0] for name in ("CXX", "CC") if os.environ.get(name)]
    compilers = chosen or ["c++", "g++", "clang++", "cl"]
    return "" if any(shutil.which(name) for name in compilers) else "no C++ compiler was found"


class BuildNative(build_ext):
    def build_extension(self, ext: Extension) -> None:
        home = torch_home()
        ext.include_dirs = [str(home / "include")]
        ext.library_dirs = [str(home / "lib")]
        ext.libraries = ["torch", "torch_cpu", "c10"]
        try:
            super().build_extension(ext)
        except Exception as error:  # noqa: BLE001 - whatever fails, the package works without
            print(
                REMEDY.format(why=f"{type(error).__name__}: the compiler failed"), file=sys.stderr
            )

    def copy_extensions_to_source(self) -> None:
        self.extensions = [
            e
            for e in self.extensions
            if (Path(self.build_lib) / self.get_ext_filename(e.name)).exists()
        ]
        super().copy_extensions_to_source()


GCC = [
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-g0",
    "-w",
]
native = Extension(
    "thinned.engines.torch._native",
    SOURCES,
    depends=[
        "csrc/philox.h",
        "csrc/kernels.h",
        "csrc/kernels.inl",
        "csrc/perceptron.inl",
        "csrc/halves.inl",
        "csrc/walk.h",
    ],
    define_macros=[
        ("TORCH_TARGET_VERSION", "0x020a000000000000"),
        ("Py_LIMITED_API", "0x030A0000"),
    ],
    extra_compile_args=["/O2", "/std:c++17"] if sys.platform == "win32" else GCC,
    py_limited_api=True,
)
why = obstacle()
if why:
    print(REMEDY.format(why=why), file=sys.stderr)
setup(
    ext_modules=[] if why else [native],
    cmdclass={"build_ext": BuildNative},
    options={} if why else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
