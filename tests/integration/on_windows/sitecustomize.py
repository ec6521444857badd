"""Takes from this project's modules, and only from them, what Windows' Python lacks; every process begins with this."""

import builtins
import multiprocessing
import os
import signal
import types

PACKAGES = ("lightning_modules", "datamodules", "callbacks", "scripts")
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "posix")
# Signals and functions of Windows, from the documentation of Python's signal module.
SIGNAL = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN", "Signals", "Handlers"}
SIGNAL |= {"default_int_handler", "getsignal", "raise_signal", "set_wakeup_fd", "signal", "strsignal", "valid_signals"}
# "Availability: Unix" there, or "not Windows".
OS = """
chown chroot confstr ctermid fchdir fchmod fchown fork forkpty fpathconf fstatvfs getegid geteuid getgid
getgroups getloadavg getpgid getpgrp getpriority getresgid getresuid getsid getuid initgroups killpg lchown
lockf major makedev minor mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate posix_spawn
posix_spawnp pread preadv pwrite pwritev readv register_at_fork sched_getaffinity sched_setaffinity
sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority setregid setreuid setsid setuid
statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev O_CLOEXEC O_DIRECTORY
O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG
"""


def without(module, names, **replaced):
    copy = types.ModuleType(module.__name__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names} | replaced)
    return copy


def import_as_there(name, globals=None, *rest, **options):
    if (globals or {}).get("__name__", "").partition(".")[0] in PACKAGES:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in THERE:
            return THERE[name]
    return import_here(name, globals, *rest, **options)


THERE = {
    "os": without(os, OS.split(), name="nt"),
    "signal": without(signal, [name for name in vars(signal) if name[0] != "_" and name not in SIGNAL]),
}
import_here, builtins.__import__ = builtins.__import__, import_as_there
multiprocessing.set_start_method("spawn")
