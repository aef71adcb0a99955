"""What a call works on: its rows, its states, and its scratch memory."""

from fastrnn.engine.backend cimport frnn_cell, frnn_step
from fastrnn.engine.blocks cimport Shape


cdef struct Rows:
    # Where the rows of a sequence lie: row b at time t is at
    # data + (t - first) * step + order[b] * row.
    char *data
    Py_ssize_t first            # the time of the first step that is kept
    Py_ssize_t step             # bytes from one time step to the next
    Py_ssize_t row              # bytes from one batch row to the next
    const Py_ssize_t *order     # (B,): batch row of each sorted row; NULL: as they are


cdef struct States:
    # Where h or c of the layers of a stack lie: row b's of layer and direction i is at
    # data + i * layer + order[b] * row.
    char *data
    Py_ssize_t layer            # bytes from one layer's to the next one's
    Py_ssize_t row              # bytes from one row's to the next one's
    const Py_ssize_t *order     # (B,); NULL: as they are


cdef struct Inputs:
    # The inputs of a pass, one row after the other.
    char *data
    Py_ssize_t stride           # elements from one row to the next
    Py_ssize_t rows
    Py_ssize_t first            # they follow time from here on; -1: step by step, each with its running rows


cdef struct Scratch:
    # What a pass needs.
    char *gates                 # of block*B rows
    char *x                     # (block*B, I): the inputs, where they have to be brought together
    char *step                  # the backend's own
    char *h                     # (B, P): the h before the pass, where the states have an order
    Inputs inputs               # of the block that is projected


cdef struct WorkingState:
    # The state of one direction of one layer during a call, where it is kept apart from the caller's.
    # (B, P) with ld_h, of even and odd steps: where steps do not write to their place
    char *h[2]
    char *c                     # (B, H) with ld_c; NULL: it stays in its place


cdef struct Pass:
    # One direction of one layer over a block of time.
    const frnn_cell *cell
    bint is_reverse
    Py_ssize_t begin, end       # its steps
    Rows x, y
    Py_ssize_t index            # of its states
    const States *h             # before the call, and then of every row after its last step
    const States *c
    const WorkingState *working
    bint is_in_place            # h goes straight to y
    bint is_lone                # one step, which projects its own inputs, bundle by bundle of its weights
    Py_ssize_t ld_next
    Scratch *scratch


cdef struct Span:
    # Part of a row, in bytes.
    Py_ssize_t begin, size


cdef struct UnitProgress:
    # BY_UNITS: where a slice is.
    Pass now
    frnn_step step              # the next one, of the slice's own parts
    Span units                  # which those are, of h and of c
    Py_ssize_t s                # the number of that step; begin - 1: the projection, end: the state
    char apart[128]             # so that no slice writes to a cache line that another one reads


cdef struct Call:
    # The caller says where rows and states lie.
    Rows source, target
    States h, c                 # c: an LSTM's
    int parity                  # 0 or 1: every other call of a stream takes its weights in the other order
    const Py_ssize_t *lengths   # (B,): longest first; NULL: all are T
    # How time is cut, as the plan says.
    Shape shape
    bint is_pipelined
    # Its memory.
    char *between[2]            # (sweep, B, D*P): from one layer to the next
    Py_ssize_t between_slot     # pipelined: bytes from one layer's to the next one's
    WorkingState *working       # (L*D,)
    Py_ssize_t ld_h, ld_c       # elements from one row of a working state to the next one
    # one; by units: one a slice; by direction: one a direction; pipelined: two a layer
    Scratch *scratches
    Call *parts                 # by rows: one a slice
    UnitProgress *progress      # by units: one a slice
