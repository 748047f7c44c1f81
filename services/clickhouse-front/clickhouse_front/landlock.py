"""Confines threads to some folders, and takes TCP from them, by Linux' Landlock.

SQL has functions that read files without asking for a privilege (`file()`), and the engine runs in the process that
holds the TLS key and the passwords. Landlock binds the calling thread and the threads that it starts; the engine's
threads are all started by restricted ones. Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_RULE_PATH_BENEATH = 1
# TCP came with version 4 (Linux 6.7).
_LEAST_VERSION = 4

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_ALL_OF_FILES = (1 << 15) - 1
_ALL_OF_TCP = 0b11
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# A rule for a file may name only what can be done to a file.
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


class LandlockError(Exception):
    """Landlock is not there, or the kernel refused a rule."""


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _syscall(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        raise LandlockError(f"system call {number} was refused: {os.strerror(ctypes.get_errno())}")
    return int(result)


def require_landlock() -> None:
    """Raises LandlockError when the kernel can't confine threads."""
    try:
        version = _syscall(_CREATE_RULESET, None, 0, 1)
    except LandlockError as error:
        raise LandlockError(f"Landlock is not available ({error}); run a Linux of at least 6.7 with Landlock") from error
    if version < _LEAST_VERSION:
        raise LandlockError(f"Landlock has version {version}, {_LEAST_VERSION} is needed; run a Linux of at least 6.7")


def restrict_thread(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leaves this thread, and those it will start, only these paths and no TCP. Paths that don't exist are skipped."""
    attributes = _Ruleset(_ALL_OF_FILES, _ALL_OF_TCP)
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ)
        for path in writable:
            _allow(ruleset, path, _ALL_OF_FILES)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise LandlockError(f"no_new_privs was refused: {os.strerror(ctypes.get_errno())}")
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(access if path.is_dir() else access & _OF_A_FILE, parent)
        _syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)
