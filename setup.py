"""Builds the native extensions; all metadata lives in pyproject.toml.

Build switches (environment):
    EDGESCRIBE_DEBUG=1      bounds checks, no optimisation, debug symbols
    EDGESCRIBE_SANITIZE=1   address and undefined-behaviour sanitizers (implies debug)
"""

import os
import shlex
import subprocess
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("EDGESCRIBE_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("EDGESCRIBE_DEBUG") == "1"
BUILD = "sanitize" if SANITIZE else "debug" if DEBUG else "release"


def pkg_config(option: str) -> list[str]:
    """Answer of ``pkg-config <option> opus``, or one clear line and exit."""
    try:
        answer = subprocess.run(
            ["pkg-config", option, "opus"], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        sys.exit(
            "edgescribe needs libopus and pkg-config to build: "
            "apt-get install libopus-dev pkg-config  /  brew install opus pkg-config"
        )
    return shlex.split(answer.stdout)


def extension(name: str, *, opus: bool = False) -> Extension:
    compile_args = ["-O0", "-g"] if DEBUG else ["-O3"]
    link_args: list[str] = []
    if SANITIZE:
        sanitizers = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
        compile_args += sanitizers
        link_args += sanitizers
    if opus:
        compile_args += pkg_config("--cflags")
        link_args += pkg_config("--libs")
    return Extension(
        f"_native.{name}",
        [f"_native/{name}.pyx"],
        depends=["_native/pcm16.h"] if name == "opus" else [],
        define_macros=[("EDGESCRIBE_BUILD", f'"{BUILD}"')],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        [
            extension("opus", opus=True),
            extension("frames"),
            extension("frame_writer"),
            extension("envelope"),
            extension("resample"),
            extension("ogg"),
            extension("webm"),
            extension("sockets"),
            extension("track", opus=True),
            extension("intake"),
            extension("chunks"),
        ],
        language_level=3,
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
        },
    ),
)
