"""Runs commands in forks of one interpreter that has imported the libraries, and stops them at a chosen call.

A fresh interpreter imports for seconds, a fork begins at once. The interpreter is multiprocessing's fork server, which
has computed nothing, so that no thread of OpenMP is lost in a fork. What a command starts in its turn (the other
processes of DDP, the fits of an ablation) is forked from the command. A plan is a dictionary:

``args``    what stands after ``cbam100``, or after ``python -m`` another ``module``
``env``     environment variables beside those of the test
``at``      ``[function, n]``: what follows happens just before the n-th call of the function, in the process of
            ``rank`` (0) whose command line contains ``word`` ("")
``signal``  is sent: to the process, ``"to": "worker"``, ``"to": "parent"``, or with ``"group": True`` to its group
``hang``    names a file that hangs its reader from then on
"""

import atexit
import faulthandler
import functools
import itertools
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import pytorch_lightning  # noqa: F401, before rich, as the command does: typing keeps whichever of Union[int, float] came first
import torch.utils.tensorboard  # noqa: F401
from lightning_utilities.core.rank_zero import rank_zero_only

from scripts import audit, process  # noqa: F401, which main imports when needed
from scripts.ablation import command as _ablate  # noqa: F401
from scripts.benchmark import command as _benchmark  # noqa: F401
from scripts.explain import command as _explain  # noqa: F401
from scripts.export import check as _check  # noqa: F401
from scripts.export import command as _export  # noqa: F401
from scripts.report import command as _report  # noqa: F401
from scripts.serve import command as _serve  # noqa: F401
from tests import narrow_resnet  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
LAST_RESORT = 300.0  # seconds after which a command counts as hanging; nothing waits for them otherwise
TRAINING, VALIDATION, PREDICTION = (
    f"lightning_modules.classifier.ImageClassifier.{kind}_step" for kind in ("training", "validation", "predict")
)
BEGINNING = f"{__name__}.interpret"  # of a process
SAVING = (
    "tempfile.mkstemp", f"{__name__}.half_written", "os.chmod", "os.fsync", "os.replace", "pathlib.Path.unlink",
)  # fmt: skip

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([__name__])


class Command:
    """A plan that is being followed, in a process group of its own, in the working directory."""

    def __init__(self, plan):
        self.files = [tempfile.NamedTemporaryFile("r", errors="replace") for _ in ("output", "error")]  # noqa: SIM115
        names = [file.name for file in self.files]
        with pytest.MonkeyPatch.context() as patch:  # for the server, which begins with the first command
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            patch.setenv("PYTHONWARNINGS", "ignore")
            self.process = context.Process(target=_follow, args=(plan, names, dict(os.environ)))
            self.process.start()

    def finish(self):
        """Waits for it; returns its ``code``, negative for a signal, its ``output`` and ``error``, and its ``pid``."""
        if not wait([self.process.sentinel], LAST_RESORT):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        output, error = (file.read() for file in self.files)
        for file in self.files:
            file.close()
        return {"code": self.process.exitcode, "output": output, "error": error, "pid": self.process.pid}


def drive(*plans):
    """The outcomes of commands, one after another. In ``args``, ``{finished}`` is how many before have ended with 0."""
    outcomes = []
    for plan in plans:
        finished = sum(outcome["code"] == 0 for outcome in outcomes)
        args = [str(arg).replace("{finished}", str(finished)) for arg in plan["args"]]
        outcomes.append(Command({**plan, "args": args}).finish())
    return outcomes


def all_ended(group):
    """Whether each process of the group has ended, though nobody may have asked for its exit code yet."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return False
    return True


def wait_until(condition):
    end = time.monotonic() + LAST_RESORT
    while not condition():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.05)


def _follow(plan, files, environment):
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # the platform's for loader processes, not a fork server's
    for descriptor, name in enumerate(files, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), descriptor)
    faulthandler.dump_traceback_later(LAST_RESORT - 10, file=sys.__stderr__)  # where it hangs, if it does
    if os.access("/dev/shm", os.W_OK):
        environment["TMPDIR"] = "/dev/shm"  # on another file system than the runs
    _begin_anew(environment | plan.get("env", {}))
    subprocess.Popen = ForkingPopen
    Path.write_bytes = _write_in_halves
    if "at" in plan:
        _stop_at(plan)
    interpret(["-m", plan.get("module", "scripts.main"), *plan["args"]])


def _begin_anew(environment):
    """Sets what an interpreter finds when it starts."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    buffering = 1 if environment.get("PYTHONUNBUFFERED") else -1
    sys.stdout = open(1, "w", buffering, closefd=False)  # noqa: SIM115, of what the descriptor is by now
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit._clear()


def interpret(words):
    """Does what ``python`` does with these words, and ends the process."""
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class ForkingPopen(subprocess.Popen):
    """Forks this process instead of starting another Python."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest):  # fmt: skip
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        if shell or not isinstance(args, list) or args[0] != sys.executable or args[1].startswith("-c"):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                                   creationflags, shell, *pipes, *rest)  # fmt: skip
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(*pipes)
            return
        for descriptor, standard in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)):
            if descriptor != -1:
                os.dup2(descriptor, standard)
        *_, new_session, group = rest
        if new_session:
            os.setsid()
        elif group >= 0:
            os.setpgid(0, group)
        if cwd is not None:
            os.chdir(cwd)
        _begin_anew(dict(os.environ if env is None else env))
        interpret([str(word) for word in args[1:] if word != "-u"])


def half_written():
    """Is called when half of a file is."""


def _write_in_halves(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        half_written()
        return file.write(content[len(content) // 2 :])


def _stop_at(plan):
    """Puts a counter around the function."""
    place, number = plan["at"]
    owner, _, name = place.rpartition(".")
    owner = pkgutil.resolve_name(owner)
    function = getattr(owner, name)
    calls = itertools.count(1)

    @functools.wraps(function)  # Lightning looks at signatures
    def counted(*args, **options):
        rank = int(os.environ.get("LOCAL_RANK", 0))
        if rank == plan.get("rank", 0) and any(plan.get("word", "") in x for x in sys.argv) and next(calls) == number:
            _act(plan)
        return function(*args, **options)

    setattr(owner, name, counted)


def _act(plan):
    if "hang" in plan:  # opening the file will wait for a writer, for ever
        os.mkfifo("pipe")
        os.replace("pipe", plan["hang"])
        return
    number, me, parent = plan["signal"], os.getpid(), os.getppid()
    if plan.get("group"):
        subprocess.run(["kill", f"-{int(number)}", "--", f"-{os.getpgid(0)}"])  # not from a process of ours
    elif plan.get("to") == "worker":
        os.kill(multiprocessing.active_children()[-1].pid, number)
    elif plan.get("to") != "parent":
        os.kill(me, number)
    elif number == signal.SIGKILL:
        os.kill(parent, number)
        wait_until(lambda: os.getppid() != parent)
    else:  # which is to pass it on
        received = []
        handler = signal.signal(number, lambda *_: received.append(number))
        os.kill(parent, number)
        wait_until(lambda: received)
        signal.signal(number, handler)
        os.kill(me, number)
