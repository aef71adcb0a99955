"""The callables with which pickles run code, a command or the content of a file, by their full names.

This list is not the protection: nothing that a file names is ever imported or called. It lets a malicious
file be refused by name, where a stand-in would pass it over. Whatever else a pickle names becomes a stand-in.
The names are those of public reports of malicious models.
"""

import functools

# Modules that have little else.
MODULES = frozenset(("subprocess", "_posixsubprocess", "pty", "runpy"))

_BY_MODULE = {
    "builtins __builtin__": "eval exec execfile compile __import__ breakpoint",
    "os posix nt": "system popen popen2 popen3 popen4 execl execle execlp execlpe execv execve execvp "
    "execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp "
    "startfile remove unlink",
    "shutil": "rmtree",
    # Under its name of Python 2, as protocol 2 writes it.
    "commands": "Popen run call check_call check_output getoutput getstatusoutput",
    "importlib": "import_module __import__",
    "types": "FunctionType LambdaType CodeType",
    "pickle _pickle cPickle": "load loads Unpickler _load _loads _Unpickler",
    "dill dill._dill cloudpickle cloudpickle.cloudpickle joblib joblib.numpy_pickle marshal": "load loads",
    "ctypes": "CDLL PyDLL",
    "code": "interact InteractiveInterpreter InteractiveConsole",
    "asyncio asyncio.subprocess": "create_subprocess_exec create_subprocess_shell",
    "torch torch.jit torch.hub torch.serialization": "load",
    "torch.utils.cpp_extension": "load load_inline",
    "pip pip._internal": "main",
}
NAMES = frozenset(
    f"{module}.{name}"
    for modules, names in _BY_MODULE.items()
    for module in modules.split()
    for name in names.split()
)

MOST_PARTS = 16


@functools.lru_cache(256)
def is_hostile(module: str, name: str) -> bool:
    """Whether a pickle that asks for this callable means to run code.

    A name with dots is looked up part by part: "os.path" and "os.system" make os.path.os.system.
    """
    parts = name.split(".")[:MOST_PARTS]
    whole = [module, *parts]
    reached = {".".join(whole[: end + 1]) for end in range(1, len(whole))}
    reached |= {".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 2, len(parts) + 1)}
    return any(text in NAMES or text.partition(".")[0] in MODULES for text in reached)
