"""What a call works on, how it is divided among threads, and where its memory lies."""

from fastrnn.engine.backend cimport frnn_backend, frnn_cell, frnn_step
from fastrnn.engine.threads.team cimport frnn_sharing_cost


cdef enum Kind:
    ALONE        # one thread does everything
    ROWS         # each slice is some rows of the batch
    DIRECTIONS   # each slice is a direction
    PANELS       # each slice is some units of every step
    PIPELINE     # each slice is some of the stages: a layer's projection, its steps


cdef struct Stack:
    # Layers in one or both directions; read by all threads.
    const frnn_cell **cells     # L*D, layer by layer, forward before reverse
    const frnn_backend *backend
    Py_ssize_t L, D, input_size, hidden_size, output_size, itemsize
    Py_ssize_t gate_bytes       # of a row
    bint has_cell_state
    int only                    # the Kind of plan that is taken wherever it can be; -1: the cheapest


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
    # The inputs of a block of time steps, one row behind the other.
    char *data
    Py_ssize_t stride           # elements from one row to the next
    Py_ssize_t rows
    Py_ssize_t first            # they follow time from here on; -1: the steps, each with its running rows


cdef struct Scratch:
    # What one direction of one layer needs to make the steps of a block.
    char *gates                 # of block*B rows
    char *x                     # (block*B, I): the inputs, where they are apart
    char *step                  # the backend's own
    char *h                     # (B, P): the h before the block, where the states have an order
    Inputs inputs               # of the block that is projected


cdef struct Kept:
    # The state of one direction of one layer from the first step of a call to the last, where it is apart.
    char *h[2]                  # (B, P) with ld_h, of even and odd steps: where it is not in place at once
    char *c                     # (B, H) with ld_c; NULL: it stays in its place


cdef struct Lane:
    # One direction of one layer over a block of time.
    const frnn_cell *cell
    bint is_reverse
    Py_ssize_t begin, end       # its steps
    Rows x, y
    Py_ssize_t index            # of its states
    const States *h             # before, and then of every row behind its last step
    const States *c
    const Kept *kept            # its state, as far as that is apart
    bint is_in_place            # h goes straight to y
    bint is_lone                # one step, which projects its own inputs, block by block of its weights
    Py_ssize_t ld_next
    Scratch *scratch


cdef struct Span:
    # Part of a row, in bytes.
    Py_ssize_t begin, size


cdef struct Turn:
    # PANELS: where a slice is.
    Lane lane
    frnn_step step              # the next one, of its own parts
    Span units                  # which those are, of h and of c
    Py_ssize_t s                # and which that is; before the first: the projection, behind the last: h
    char apart[128]             # lest what a slice writes share a cache line with what another reads


cdef struct Row:
    Py_ssize_t length
    Py_ssize_t index


cdef struct Call:
    Py_ssize_t T
    Py_ssize_t B
    const Py_ssize_t *lengths   # (B,): longest first; NULL: all are T
    Rows source, target
    States h, c                 # c: an LSTM's; whoever makes the call says where they lie
    int parity                  # 0 or 1: every other call of a stream takes its weights the other way
    # How it is divided.
    Kind kind
    int slices, threads
    double alone                # nanoseconds that one thread should take
    double longest              # and a slice at most
    Py_ssize_t block            # time steps in a block
    Py_ssize_t chunk            # time steps that go through all layers together
    # Its memory.
    char *between[2]            # (chunk, B, D*P): from one layer to the next
    Py_ssize_t between_slot     # PIPELINE: bytes from one layer's to the next one's
    Kept *kept                  # (L*D,)
    Py_ssize_t ld_h, ld_c       # elements from one row that is kept to the next one
    Scratch *scratches          # one; PANELS: one a slice; DIRECTIONS: one a direction; PIPELINE: two a layer
    Call *parts                 # ROWS: one a slice
    Turn *turns                 # PANELS: one a slice
    int *stages                 # PIPELINE: (slices + 1,): the first stage of each slice
    Row *sorting                # (B,): with lengths
    Py_ssize_t *order           # (B,)
    Py_ssize_t *sorted_lengths  # (B,)


cdef frnn_sharing_cost LEAST

cdef size_t plan(
    const Stack *stack, Call *call, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
) noexcept nogil
cdef size_t room(const Stack *stack, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads) noexcept nogil
cdef void choose(
    const Stack *stack, Call *call, Py_ssize_t T, Py_ssize_t B, bint is_ragged, int threads,
    const frnn_sharing_cost *cost,
) noexcept nogil
cdef size_t lay_out(const Stack *stack, Call *call, char *memory, bint is_ragged) noexcept nogil
cdef Py_ssize_t count(Py_ssize_t whole, Py_ssize_t part) noexcept nogil
cdef Py_ssize_t parts_of(const Stack *stack, const frnn_cell *cell) noexcept nogil
cdef Py_ssize_t most_rows(Py_ssize_t B, int slices) noexcept nogil
cdef Py_ssize_t rows_before(Py_ssize_t rows, int part, int parts) noexcept nogil
cdef Py_ssize_t block_of(const Stack *stack, Py_ssize_t T, Py_ssize_t B, int slices) noexcept nogil
cdef double cut_stages(
    const Stack *stack, Py_ssize_t steps, Py_ssize_t rows, int slices, int *cuts,
) noexcept nogil
cdef double stack_ns(const Stack *stack, double steps, double rows, double share) noexcept nogil
cdef double dense_ns(const frnn_cell *cell, Py_ssize_t n) noexcept nogil
cdef int slices_of(double time, Py_ssize_t parts, int threads) noexcept nogil
cdef int dense_slices(const frnn_cell *cell, Py_ssize_t n, int threads) noexcept nogil
