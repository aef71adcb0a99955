"""Calls of a program in the plain case, in compiled code: from arguments to a plan, and to results."""

cimport numpy as cnp
import numpy as np
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.string cimport memcmp

from fastrnn.program.executor cimport CompiledPlan

cnp.import_array()


# What a node of a structure is.
cdef enum:
    ARRAY
    CONSTANT
    TUPLE
    LIST
    DICT


cdef class Form:
    """A structure of arguments or results (`fastrnn.structure`), as compiled code reads it."""

    cdef int kind
    cdef Py_ssize_t index       # of an array
    cdef object value           # of a constant; the keys of a dict
    cdef tuple parts

    def __init__(self, structure):
        ((kind, content),) = structure.items()
        self.parts = ()
        if kind == "array":
            self.kind = ARRAY
            self.index = content
        elif kind == "constant":
            self.kind = CONSTANT
            self.value = content
        elif kind == "dict":
            self.kind = DICT
            self.value = tuple(content)
            self.parts = tuple([Form(part) for part in content.values()])
        else:
            self.kind = LIST if kind == "list" else TUPLE
            self.parts = tuple([Form(part) for part in (content[1] if kind == "named" else content)])

    cdef bint take(self, object value, list arrays) except -1:
        """Append the arrays of a value. False for a value that is not nested just like this."""
        cdef Py_ssize_t i
        cdef PyObject *part
        if self.kind == ARRAY:
            arrays.append(value)
            return True
        if self.kind == CONSTANT:
            return value is self.value or (type(value) is type(self.value) and value == self.value)
        if self.kind == DICT:
            if type(value) is not dict or len(<dict>value) != len(self.parts):
                return False
            for i in range(len(self.parts)):
                part = PyDict_GetItem(value, (<tuple>self.value)[i])
                if part == NULL or not (<Form>self.parts[i]).take(<object>part, arrays):
                    return False
            return True
        # A list is copied: another thread may change it meanwhile.
        if type(value) is list:
            value = tuple(<list>value)
        if type(value) is not tuple or len(<tuple>value) != len(self.parts):
            return False
        for i in range(len(self.parts)):
            if not (<Form>self.parts[i]).take((<tuple>value)[i], arrays):
                return False
        return True

    cdef object give(self, list arrays):
        """The value with these arrays."""
        cdef Py_ssize_t i
        if self.kind == ARRAY:
            return arrays[self.index]
        if self.kind == CONSTANT:
            return self.value
        if self.kind == DICT:
            return {
                key: (<Form>part).give(arrays)
                for key, part in zip(<tuple>self.value, self.parts)
            }
        if self.kind == LIST:
            return [(<Form>part).give(arrays) for part in self.parts]
        result = PyTuple_New(len(self.parts))
        for i in range(len(self.parts)):
            part = (<Form>self.parts[i]).give(arrays)
            Py_INCREF(part)
            PyTuple_SET_ITEM(result, i, part)
        return result


cdef class Caller:
    """Calls of a program in the plain case: arrays of sizes that were seen before, and nothing to convert.

    Parameters
    ----------
    arguments, results : structure
    inputs : sequence of Input
        Those that callers give.
    hidden : sequence of ndarray
        The inputs after those.
    """

    cdef Form positional, named, results
    cdef tuple numbers, axes    # of the types of inputs; how many axes they have
    cdef list hidden
    cdef tuple plans            # of CompiledPlan, the latest first

    def __init__(self, arguments, results, inputs, hidden):
        positional, named = arguments["tuple"]
        self.positional, self.named, self.results = Form(positional), Form(named), Form(results)
        self.numbers = tuple([np.dtype(form.dtype).num for form in inputs])
        self.axes = tuple([len(form.shape) for form in inputs])
        self.hidden = list(hidden)
        self.plans = ()

    def keep(self, plans):
        """Run with these plans from now on."""
        self.plans = tuple(plans)

    def call(self, tuple args, dict kwargs):
        """The program's result, or NotImplemented for arguments that are not plain."""
        cdef list arrays = []
        cdef CompiledPlan plan
        if not self.positional.take(args, arrays) or not self.named.take(kwargs, arrays):
            return NotImplemented
        if not self.are_plain(arrays):
            return NotImplemented
        for plan in self.plans:
            if fits(plan, arrays):
                return self.results.give(plan.run(tuple(arrays + self.hidden if self.hidden else arrays)))
        return NotImplemented

    cdef bint are_plain(self, list arrays) except -1:
        cdef Py_ssize_t i
        for i in range(len(arrays)):
            array = arrays[i]
            if (
                not cnp.PyArray_CheckExact(array)
                or cnp.PyArray_TYPE(<cnp.ndarray>array) != <int>self.numbers[i]
                or cnp.PyArray_NDIM(<cnp.ndarray>array) != <int>self.axes[i]
                or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array)
            ):
                return False
        return True


cdef bint fits(CompiledPlan plan, list arrays) noexcept:
    """Whether a plan is for arrays of these shapes, with as many axes. Hidden inputs come after them."""
    cdef const cnp.npy_intp *sizes = plan.sizes
    cdef cnp.ndarray array
    cdef Py_ssize_t i
    cdef int axes
    for i in range(len(arrays)):
        array = arrays[i]
        axes = cnp.PyArray_NDIM(array)
        if memcmp(sizes, cnp.PyArray_DIMS(array), axes * sizeof(cnp.npy_intp)) != 0:
            return False
        sizes += axes
    return True
