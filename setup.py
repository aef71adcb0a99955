"""What pyproject.toml cannot say: the compiled modules and the switches of their build.

FASTRNN_DEBUG=1     bounds checks on, no optimisation, debug symbols
FASTRNN_ANNOTATE=1  Cython's annotated HTML beside each module
"""

import os
import sys
import tempfile
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.errors import BaseError, CCompilerError

is_debug = os.environ.get("FASTRNN_DEBUG") == "1"
is_msvc = os.name == "nt"

if is_msvc:
    compile_args = ["/Od", "/Zi"] if is_debug else ["/O2"]
else:
    compile_args = ["-O0", "-g"] if is_debug else ["-O3", "-g0", "-fno-math-errno"]

# Kernels promise the same bits for any tiling: no multiply and add may be fused behind their back.
kernel_args = [] if is_msvc else ["-ffp-contract=off"]


# The team's atomics are C11's.
team_args = ["/std:c11"] if is_msvc else ["-std=gnu11", "-pthread"]
TEAM = (
    "jobs.c",
    "slices.c",
    "workers.c",
    "sleep.c",
    "affinity.c",
    "availability.c",
    "sharing_cost.c",
    "no_threads.c",
    "forks.c",
)


# No names of functions that nobody looks up: a tenth of the size of most modules.
link_args = ["-Wl,-s"] if sys.platform == "linux" and not is_debug else []


# Commands that compile; others, as those that make metadata or a source archive, want no compiler.
BUILDING = {"build", "build_ext", "bdist_wheel", "bdist_egg", "editable_wheel", "develop", "install"}

REMEDIES = {
    "darwin": "xcode-select --install",
    "win32": "the Visual Studio Build Tools with their C++ workload, "
    "https://visualstudio.microsoft.com/visual-cpp-build-tools/",
}
LINUX = "apt install gcc python3-dev, or dnf install gcc python3-devel"


def check_compiler():
    """End with one sentence where nothing can be compiled: before Cython works, and with no traceback."""
    missing = missing_to_compile()
    if missing is not None:
        remedy = REMEDIES.get(sys.platform, LINUX)
        raise SystemExit(
            f"fastrnn is compiled as it is installed, and {missing}: install it first ({remedy})."
        )


def missing_to_compile():
    """What is missing to compile a module of Python; None if nothing is."""
    # Setuptools' own, which it puts in the place of the standard library's.
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler, get_python_inc

    compiler = new_compiler()
    customize_compiler(compiler)
    includes = sorted({get_python_inc(), get_python_inc(plat_specific=True)})
    with tempfile.TemporaryDirectory() as folder:
        for header, missing in (
            ("stdlib.h", "no C compiler works here"),
            ("Python.h", "Python's header Python.h is not there"),
        ):
            source = Path(folder, f"{header}.c")
            source.write_text(f"#include <{header}>\n")
            try:
                compiler.compile([str(source)], output_dir=folder, include_dirs=includes)
            except (BaseError, CCompilerError) as error:
                return f"{missing} ({error})"
    return None


def extension(name, *sources, **options):
    path = f"fastrnn/{name.replace('.', '/')}"
    return Extension(
        f"fastrnn.{name}",
        [f"{path}.pyx", *(f"{os.path.dirname(path)}/{source}" for source in sources)],
        include_dirs=["fastrnn/engine", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        depends=glob("fastrnn/engine/**/*.h", recursive=True),
        extra_link_args=link_args,
        **{"extra_compile_args": compile_args, **options},
    )


extensions = [
    extension("engine.packing"),
    extension("engine.blas.kernels"),
    extension("engine.threads.team", *TEAM, extra_compile_args=compile_args + team_args),
    extension("engine.workspace"),
    extension("engine.memory_layout"),
    extension("engine.plan"),
    extension("engine.passes"),
    extension("engine.divisions"),
    extension("operators.operator"),
    extension("operators.stateless"),
    extension("operators.recurrent"),
    extension("operators.convolution"),
    extension("operators.runner"),
    extension("program.caller"),
    extension("program.executor"),
    extension("program.recurrent_step"),
    extension("program.steps"),
    extension("program.product_steps"),
    extension("program.token_step"),
    extension("program.window_steps"),
    extension("streaming.stream_base"),
    extension("streaming.open_streams"),
    # A compiler that cannot build the kernels leaves the blas backend alone.
    extension(
        "engine.simd.tables",
        "kernels.c",
        extra_compile_args=compile_args + kernel_args,
        libraries=[] if is_msvc else ["m"],
        optional=True,
    ),
    extension(
        "engine.simd.array_tables",
        "array_kernels.c",
        extra_compile_args=compile_args + kernel_args,
        libraries=[] if is_msvc else ["m"],
        optional=True,
    ),
]

if BUILDING.intersection(sys.argv):
    check_compiler()

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": 3,
            "boundscheck": is_debug,
            "wraparound": is_debug,
            "initializedcheck": is_debug,
            "cdivision": True,
            "freethreading_compatible": True,
        },
        include_path=["."],
        build_dir="build/cython",
        annotate=os.environ.get("FASTRNN_ANNOTATE") == "1",
    )
)
