"""Callables with which pickles run code, by their full names.

Nothing that a file names is ever imported or called, so this list protects nobody: it is here to say
plainly that a file is hostile, where a stand-in would pass it over. Whatever else a pickle names becomes
a stand-in. The names are those of public reports of malicious models and of the standard library's ways
to run a command, a text or a file (https://docs.python.org/3/library/audit_events.html).
"""

import functools

# Modules that have little else.
MODULES = frozenset(("subprocess", "_posixsubprocess", "pty", "runpy"))

_BY_MODULE = {
    "builtins __builtin__": "eval exec execfile compile __import__ open input breakpoint reload apply",
    "os posix nt": "system popen popen2 popen3 popen4 execl execle execlp execlpe execv execve execvp "
    "execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe posix_spawn posix_spawnp "
    "startfile fork forkpty fdopen open kill killpg remove unlink rmdir removedirs rename replace truncate "
    "chmod putenv",
    "shutil": "rmtree move copy copyfile copytree chown unpack_archive",
    "sys": "setprofile settrace addaudithook breakpointhook",
    "importlib": "import_module __import__ reload",
    "importlib.util": "module_from_spec spec_from_file_location",
    "types": "FunctionType LambdaType CodeType",
    "pickle _pickle cPickle": "load loads Unpickler _load _loads _Unpickler",
    "dill dill._dill cloudpickle cloudpickle.cloudpickle joblib joblib.numpy_pickle marshal": "load loads",
    "_io io": "open open_code FileIO",
    "socket _socket": "socket create_connection create_server",
    "urllib urllib.request urllib2": "urlopen urlretrieve",
    "requests requests.api": "get post put request",
    "http.client httplib": "HTTPConnection HTTPSConnection",
    "ftplib": "FTP FTP_TLS",
    "smtplib": "SMTP SMTP_SSL",
    "ctypes _ctypes": "CDLL PyDLL cdll pydll LibraryLoader dlopen",
    "asyncio asyncio.subprocess": "create_subprocess_exec create_subprocess_shell",
    "multiprocessing multiprocessing.context": "Process",
    "torch": "load",
    "torch.hub": "load load_state_dict_from_url download_url_to_file",
    "torch.jit": "load",
    "torch.serialization": "load",
    "torch.utils.cpp_extension": "load load_inline",
    "numpy.testing._private.utils numpy.testing": "runstring rundocs",
    "doctest": "debug debug_src debug_script",
    "code": "interact InteractiveInterpreter InteractiveConsole compile_command",
    "codeop": "compile_command",
    # Under its name of Python 2, as protocol 2 writes it.
    "commands": "Popen run call check_call check_output getoutput getstatusoutput",
    "popen2": "popen2 popen3 popen4 Popen3 Popen4",
    "pdb": "run runeval runcall runctx Pdb set_trace",
    "bdb": "Bdb",
    "timeit": "timeit repeat Timer main",
    "cProfile profile": "run runctx Profile",
    "trace": "Trace",
    "webbrowser": "open open_new open_new_tab get",
    "imp": "load_source load_module load_dynamic load_compiled",
    "pip pip._internal": "main",
    "pydoc": "pipepager tempfilepager locate safeimport",
    "linecache": "getline updatecache",
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
