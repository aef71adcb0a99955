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


cdef enum:
    # Places where a layer reads or writes rows.
    BETWEEN                     # in what one layer gives the next one
    OUTSIDE                     # in the caller's source or target


cdef struct PassPlan:
    # What is decided of the passes over some rows: all rows of a call or, by rows, those of a slice.
    Shape shape
    Py_ssize_t parts            # of a cell: all cells of a stack have the same ones
    bint is_pipelined           # what each layer gives the next one has a place of its own, for two sweeps
    # A pass of at least this many steps projects its inputs before them. In a shorter one the step does it,
    # part by part of the weights.
    Py_ssize_t projected_steps
    # Inputs are read where they lie, at [a place][forward or reverse], by passes of at most `direct_steps`
    # that end within the `common_steps` that every row has. Other passes gather theirs.
    Py_ssize_t direct_steps[2][2]
    Py_ssize_t common_steps
    bint is_in_place[2][2]      # steps write h where it is wanted, at [a place][...]; else apart
    bint is_c_apart             # c is in the working state; else steps change the caller's
    Py_ssize_t ld_h, ld_c       # elements from one row of a working state to the next one
    size_t backend_bytes        # the backend's own scratch


cdef struct Inputs:
    # The inputs of a pass, one row after the other.
    char *data
    Py_ssize_t stride           # elements from one row to the next
    Py_ssize_t rows
    Py_ssize_t first            # they follow time from here on; -1: step by step, each with its running rows


cdef struct Scratch:
    # What a pass needs.
    char *gates                 # of block*B rows
    char *x                     # (block*B, I): the inputs, where they have to be gathered
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
    # What the plan says.
    bint is_gathered            # its inputs are brought together
    bint is_projected           # before its steps; else its one step projects them
    bint is_in_place            # h goes straight to y
    Py_ssize_t ld_next
    Scratch *scratch


cdef struct Span:
    # Consecutive bytes of a row.
    Py_ssize_t begin, size


cdef struct UnitProgress:
    # BY_UNITS: where a slice is.
    Pass now
    frnn_step step              # the next one, of the slice's own parts
    Span units                  # of these parts, in a row of h or of c
    Py_ssize_t s                # the number of that step; begin - 1: the projection, end: the state
    char apart[128]             # so that no slice writes to a cache line that another one reads


cdef struct Call:
    # The caller says where rows and states lie.
    Rows source, target
    States h, c                 # c: an LSTM's
    int parity                  # 0 or 1: every other call of a stream takes its weights in the other order
    const Py_ssize_t *lengths   # (B,): longest first; NULL: all are T
    const PassPlan *passes      # the plan's; by rows: of each slice's call
    # Its memory.
    char *between[2]            # (sweep, B, D*P): from one layer to the next
    Py_ssize_t between_slot     # pipelined: bytes from one layer's to the next one's
    WorkingState *working       # (L*D,)
    # one; by units: one a slice; by direction: one a direction; pipelined: two a layer
    Scratch *scratches
    Call *slices                # by rows: one a slice
    UnitProgress *progress      # by units: one a slice
