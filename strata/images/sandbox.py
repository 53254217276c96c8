"""What a decoding process takes from itself before it reads a caller's bytes: files, network, other processes, memory.

Linux alone has all of it; elsewhere the limits of POSIX hold. Nothing here needs privileges.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from contextlib import suppress

_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2  # prctl(2)
# instructions of the classic BPF, of linux/filter.h: load a word, jump if equal, return
_LOAD, _JUMP, _JUMP_IF_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
# SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM, and with ENOSYS
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x00010000  # of clone(2): the new task is a thread of this process
_CLONE3 = 435
# the architecture's number in linux/audit.h, and the numbers of the system calls that decoding needs; all others fail.
# In order: read, write, lseek, mmap, mprotect, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, pread64,
# madvise, mremap, sched_yield, setitimer, getpid, sendto, recvfrom, exit, exit_group, futex, gettid, clock_gettime,
# getrusage, prlimit64, getrandom, clock_nanosleep, rseq. Then those that a thread needs, clone first: set_robust_list,
# sigaltstack, sched_getaffinity
_CALLS = {
    "x86_64": (
        0xC000003E,
        "0 1 8 9 10 11 12 13 14 15 17 28 25 24 38 39 44 45 60 231 202 186 228 98 302 318 230 334",
        "56 273 131 204",
    ),
    "aarch64": (
        0xC00000B7,
        "63 64 62 222 226 215 214 134 135 139 67 233 216 124 103 172 206 207 93 94 98 178 113 165 261 278 115 293",
        "220 99 132 123",
    ),
}


class Sandbox:
    """The limits of this process. Create it when all is imported and all files are open.

    Afterwards no file can be opened, no socket made and no process started; a file cannot be written and no core is
    dumped. On Linux on x86-64 and ARM, the kernel refuses all system calls but those that decoding needs (seccomp).
    threads: whether threads of this process may be started, which the decoder of HEIC needs.
    """

    def __init__(self, threads: bool = False) -> None:
        self._status = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None
        # the limit of processes counts threads too
        processes = () if threads else (resource.RLIMIT_NPROC,)
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, *processes):
            resource.setrlimit(limit, (0, 0))
        # the files that are open stay so: no number is left for another one
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        if sys.platform == "linux":
            _filter_system_calls(threads)
        self._base = self.memory()

    def memory(self) -> int:
        """Bytes of address space that this process uses; 0 where that is not known."""
        if self._status is None:
            return 0
        return int(os.pread(self._status, 128, 0).split()[0]) * resource.getpagesize()

    @property
    def grown(self) -> int:
        """Bytes of address space that this process uses more than at its start."""
        return self.memory() - self._base

    def allow(self, memory: int, seconds: float) -> bool:
        """Allow so many more bytes of memory, and so many seconds of processor time, from now on.

        Allocations beyond that fail. When the time is over, the kernel ends the process by SIGPROF. Returns whether
        all of the memory is allowed: a limit of address space that the service has, as by `ulimit -v`, stays.
        """
        wanted, hard = self._base + memory, resource.RLIM_INFINITY
        if self._status is not None:
            # only a privileged process may raise its hard limit
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return hard == resource.RLIM_INFINITY or wanted <= hard

    def rest(self) -> None:
        """Stop the clock, after an image."""
        signal.setitimer(signal.ITIMER_PROF, 0)


def _filter_system_calls(threads: bool) -> None:
    """Install the filter; where the kernel has no seccomp, the other limits must do."""
    if platform.machine() not in _CALLS:
        return
    architecture, calls, thread_calls = _CALLS[platform.machine()]
    refuse = _instruction(_RETURN, _REFUSE)
    program = _instruction(_LOAD, _ARCHITECTURE) + _instruction(_JUMP, architecture, 1, 0) + refuse
    program += _instruction(_LOAD, _NUMBER)
    for number in map(int, calls.split()):
        program += _instruction(_JUMP, number, 0, 1) + _instruction(_RETURN, _ALLOW)
    if threads:
        # clone3 has its flags in memory, where they cannot be seen: it is unknown, so that the C library calls clone
        clone, *others = map(int, thread_calls.split())
        program += _instruction(_JUMP, _CLONE3, 0, 1) + _instruction(_RETURN, _UNKNOWN)
        for number in others:
            program += _instruction(_JUMP, number, 0, 1) + _instruction(_RETURN, _ALLOW)
        program += _instruction(_JUMP, clone, 0, 3) + _instruction(_LOAD, _FIRST_ARGUMENT)
        program += _instruction(_JUMP_IF_BITS, _CLONE_THREAD, 0, 1) + _instruction(_RETURN, _ALLOW)
    program += refuse
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and their address
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    library = ctypes.CDLL(None, use_errno=True)
    with suppress(OSError):
        library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        library.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(described), 0, 0)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
