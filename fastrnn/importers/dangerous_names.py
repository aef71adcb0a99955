"""The names of callables with which a pickle could run code or a command, or delete a file.

This list is not the protection: nothing that a file names is ever imported or called, whether it is listed
here or not. The list lets `pickle_reader` refuse a malicious file by name. Any other unknown name in a pickle
becomes a stand-in. The names come from public reports of malicious models.
"""

import functools

# Modules in which almost every name is dangerous.
MODULES = frozenset(("subprocess", "_posixsubprocess", "pty", "runpy"))

_BY_MODULE = {
    "builtins __builtin__": "eval exec execfile compile __import__ breakpoint",
    "os posix nt": "system popen popen2 popen3 popen4 execl execle execlp execlpe execv execve execvp "
    "execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp "
    "startfile remove unlink",
    "shutil": "rmtree",
    # Python 2's name of subprocess, which protocol 2 writes.
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

MAX_PARTS = 16


@functools.lru_cache(256)
def is_dangerous(module: str, name: str) -> bool:
    """Whether a pickle that names this callable is meant to run code.

    A name with dots reaches through modules: "os.system" in the module "os.path" is os.path.os.system. So
    every run of its words is looked up.
    """
    words = name.split(".")[:MAX_PARTS]
    whole = [module, *words]
    reached = {".".join(whole[: end + 1]) for end in range(1, len(whole))}
    reached |= {".".join(words[i:j]) for i in range(len(words)) for j in range(i + 2, len(words) + 1)}
    return any(text in NAMES or text.partition(".")[0] in MODULES for text in reached)
