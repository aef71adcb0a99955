"""The blas backend: plain row-major weights, BLAS from SciPy, one gate after the other.

Portable and complete, in float32 and float64; what a faster backend is compared with.
Importing this module imports ``scipy.linalg.cython_blas`` (120 to 150 ms), so it is
imported when a layer first asks for the backend.
"""

from cpython.pycapsule cimport PyCapsule_New
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_release_lock, PyThread_type_lock, WAIT_LOCK,
)
from libc.stdint cimport uint64_t, uintptr_t
from libc.math cimport exp, expf, tanh, tanhf
from libc.string cimport memcpy, memset
from scipy.linalg.cython_blas cimport dgemm, dgemv, sgemm, sgemv

from fastrnn.engine.backend cimport (
    FRNN_F32, FRNN_F64, FRNN_GRU, FRNN_LSTM, FRNN_RNN_RELU, FRNN_STORED_F32, FRNN_STORED_F64,
    frnn_arithmetic_bytes, frnn_arithmetic_name, frnn_backend, frnn_cell, frnn_format, frnn_matrix,
    frnn_products, frnn_rates, frnn_source, frnn_step, frnn_storage_name,
)
from fastrnn.engine.threads.team cimport frnn_watcher, lock_over_forks, watch_forks

ctypedef fused floating:
    float
    double


# ---------------------------------------------------------------- BLAS, row-major, values in

cdef void gemm_nt(
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
    floating *c, Py_ssize_t ldc,
) noexcept nogil:
    """C (m, n) += A (m, k) @ B (n, k).T; a row of C alone is a matrix-vector product."""
    cdef Py_ssize_t most = 1 << 30  # BLAS counts in 32 bits
    while m > most:
        gemm_nt(most, n, k, a, lda, b, ldb, c, ldc)
        m -= most
        a += most * lda
        c += most * ldc
    # BLAS is column-major and takes no const: C.T (n, m) += (B.T).T @ A.T.
    cdef int m_ = <int>m, n_ = <int>n, k_ = <int>k
    cdef int lda_ = <int>lda, ldb_ = <int>ldb, ldc_ = <int>ldc, one_step = 1
    cdef floating one = 1
    if m == 1:
        if floating is float:
            sgemv(b"T", &k_, &n_, &one, <float *>b, &ldb_, <float *>a, &one_step, &one, c, &one_step)
        else:
            dgemv(b"T", &k_, &n_, &one, <double *>b, &ldb_, <double *>a, &one_step, &one, c, &one_step)
    elif floating is float:
        sgemm(b"T", b"N", &n_, &m_, &k_, &one, <float *>b, &ldb_, <float *>a, &lda_, &one, c, &ldc_)
    else:
        dgemm(b"T", b"N", &n_, &m_, &k_, &one, <double *>b, &ldb_, <double *>a, &lda_, &one, c, &ldc_)


# ---------------------------------------------------------------- gates, for one row of H units

cdef inline floating sigmoid(floating x) noexcept nogil:
    if floating is float:
        return 1 / (1 + expf(-x))
    else:
        return 1 / (1 + exp(-x))


cdef inline floating hyperbolic_tangent(floating x) noexcept nogil:
    if floating is float:
        return tanhf(x)
    else:
        return tanh(x)


cdef void lstm_gates(
    Py_ssize_t H, const floating *gates, floating *c, floating *h,
) noexcept nogil:
    """c = f * c + i * g and h = o * tanh(c); gates (4*H) hold i, f, g, o."""
    cdef Py_ssize_t j
    cdef floating i, f, g, o
    for j in range(H):
        i = sigmoid(gates[j])
        f = sigmoid(gates[H + j])
        g = hyperbolic_tangent(gates[2 * H + j])
        o = sigmoid(gates[3 * H + j])
        c[j] = f * c[j] + i * g
        h[j] = o * hyperbolic_tangent(c[j])


cdef void gru_gates(
    Py_ssize_t H, const floating *gates, const floating *hidden,
    const floating *h_prev, floating *h,
) noexcept nogil:
    """h = (1 - z) * n + z * h_prev with n = tanh(gates_n + r * hidden_n).

    gates (3*H) come from x, hidden (3*H) from h_prev; both hold r, z, n.
    """
    cdef Py_ssize_t j
    cdef floating r, z, n
    for j in range(H):
        r = sigmoid(gates[j] + hidden[j])
        z = sigmoid(gates[H + j] + hidden[H + j])
        n = hyperbolic_tangent(gates[2 * H + j] + r * hidden[2 * H + j])
        h[j] = (1 - z) * n + z * h_prev[j]


cdef void rnn_gate(
    Py_ssize_t H, bint is_relu, const floating *gate, floating *h,
) noexcept nogil:
    """h = relu(gate) or tanh(gate); a NaN stays one."""
    cdef Py_ssize_t j
    for j in range(H):
        if is_relu:
            h[j] = 0 if gate[j] <= 0 else gate[j]
        else:
            h[j] = hyperbolic_tangent(gate[j])


# ---------------------------------------------------------------- project and step

cdef void multiply(
    const frnn_matrix *matrix, Py_ssize_t n, const floating *x, Py_ssize_t ldx, const floating *bias,
    floating *out, Py_ssize_t ldo,
) noexcept nogil:
    """out (n, rows) = x (n, columns) W^T + bias (rows); NULL: no bias."""
    cdef Py_ssize_t m, size = matrix.rows * sizeof(floating)
    for m in range(n):
        if bias == NULL:
            memset(out + m * ldo, 0, size)
        else:
            memcpy(out + m * ldo, bias, size)
    gemm_nt(
        n, matrix.rows, matrix.columns, x, ldx, <const floating *>matrix.data, matrix.columns, out, ldo)


cdef void project(
    const frnn_cell *cell, Py_ssize_t n, const floating *x, Py_ssize_t ldx, floating *gates,
) noexcept nogil:
    multiply[floating](&cell.w_ih, n, x, ldx, <const floating *>cell.bias, gates, gate_width(cell))


cdef void step(const frnn_cell *cell, const frnn_step *args, floating *gates) noexcept nogil:
    """A step, with the gates (n, G*H) of its rows."""
    cdef Py_ssize_t H = cell.hidden_size, P = cell.output_size, width = cell.gates * cell.hidden_size, row
    cdef Py_ssize_t n = args.n, ld_prev = args.ld_prev, ld_next = args.ld_next, place
    cdef const floating *h_prev = <const floating *>args.h_prev
    cdef floating *h_next = <floating *>args.h_next
    cdef floating *c = <floating *>args.c
    cdef floating *scratch = <floating *>args.scratch
    cdef floating *hidden = gates       # (n, G*H): what h_prev adds to the gates
    cdef floating *h = h_next           # (n, H): the new h before its projection
    cdef Py_ssize_t ldh = ld_next
    if args.x != NULL:
        project[floating](cell, n, <const floating *>args.x, args.ldx, gates)
    if cell.kind == FRNN_GRU:
        hidden = scratch
        memset(hidden, 0, n * width * sizeof(floating))
        for row in range(n):
            memcpy(hidden + row * width + 2 * H, cell.bias_hn, H * sizeof(floating))
    if cell.w_hr.data != NULL:
        h = scratch
        ldh = H
    gemm_nt(n, width, P, h_prev, ld_prev, <const floating *>cell.w_hh.data, P, hidden, width)
    for row in range(n):
        if cell.kind == FRNN_LSTM:
            place = row if args.c_order == NULL else args.c_order[row]
            lstm_gates(H, gates + row * width, c + place * args.ldc, h + row * ldh)
        elif cell.kind == FRNN_GRU:
            gru_gates(
                H, gates + row * width, hidden + row * width,
                h_prev + row * ld_prev, h + row * ldh,
            )
        else:
            rnn_gate(H, cell.kind == FRNN_RNN_RELU, gates + row * width, h + row * ldh)
    if cell.w_hr.data != NULL:
        multiply[floating](&cell.w_hr, n, h, ldh, NULL, h_next, ld_next)


cdef size_t scratch_size(const frnn_cell *cell, Py_ssize_t n) noexcept nogil:
    if cell.kind == FRNN_GRU:
        return n * cell.gates * cell.hidden_size
    return 0 if cell.w_hr.data == NULL else n * cell.hidden_size


cdef Py_ssize_t gate_width(const frnn_cell *cell) noexcept nogil:
    return cell.gates * cell.hidden_size


# ---------------------------------------------------------------- the tables that drivers are handed

cdef size_t pack(frnn_matrix *matrix, const frnn_source *source, void *memory) noexcept nogil:
    """Nothing is packed: products read the rows where they lie."""
    matrix.data = source.data
    return 0


cdef size_t pack_biases(
    frnn_cell *cell, const void *bias, const void *bias_hn, void *memory,
) noexcept nogil:
    cell.bias = bias
    cell.bias_hn = bias_hn
    return 0


cdef void project_f32(
    const frnn_cell *cell, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n, const void *x, Py_ssize_t ldx,
    void *gates, void *scratch,
) noexcept nogil:
    project[float](cell, n, <const float *>x, ldx, <float *>gates)


cdef void project_f64(
    const frnn_cell *cell, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n, const void *x, Py_ssize_t ldx,
    void *gates, void *scratch,
) noexcept nogil:
    project[double](cell, n, <const double *>x, ldx, <double *>gates)


cdef void dense_f32(
    const frnn_matrix *matrix, Py_ssize_t n, const void *x, Py_ssize_t ldx, const void *bias,
    void *out, Py_ssize_t ldo, void *scratch,
) noexcept nogil:
    multiply[float](matrix, n, <const float *>x, ldx, <const float *>bias, <float *>out, ldo)


cdef void dense_f64(
    const frnn_matrix *matrix, Py_ssize_t n, const void *x, Py_ssize_t ldx, const void *bias,
    void *out, Py_ssize_t ldo, void *scratch,
) noexcept nogil:
    multiply[double](matrix, n, <const double *>x, ldx, <const double *>bias, <double *>out, ldo)


cdef void step_f32(const frnn_cell *cell, const frnn_step *args) noexcept nogil:
    step[float](cell, args, <float *>args.gates + args.row * gate_width(cell))


cdef void step_f64(const frnn_cell *cell, const frnn_step *args) noexcept nogil:
    step[double](cell, args, <double *>args.gates + args.row * gate_width(cell))


cdef Py_ssize_t part_units(const frnn_cell *cell) noexcept nogil:
    return cell.hidden_size


cdef Py_ssize_t apart(Py_ssize_t n, Py_ssize_t columns) noexcept nogil:
    return columns


# ---------------------------------------------------------------- one thread inside BLAS

# The drivers divide the work, so BLAS has one thread while any call is under way. This is compiled code, so
# that no exception can come in between.
cdef PyThread_type_lock lock = PyThread_allocate_lock()
cdef int inside = 0             # how many calls are under way
cdef int threads_before = 1     # that BLAS had
cdef frnn_watcher watcher       # of forks
cdef int (*get_threads)() noexcept nogil
cdef void (*set_threads)(int) noexcept nogil


cdef void begin() noexcept nogil:
    global inside, threads_before
    PyThread_acquire_lock(lock, WAIT_LOCK)
    if inside == 0:
        threads_before = get_threads()
        if threads_before != 1:
            set_threads(1)
    inside += 1
    PyThread_release_lock(lock)


cdef void end() noexcept nogil:
    global inside
    PyThread_acquire_lock(lock, WAIT_LOCK)
    inside -= 1
    if inside == 0 and threads_before != 1:
        set_threads(threads_before)
    PyThread_release_lock(lock)


# The lock is held over a fork. OpenBLAS holds one of its own while its number of threads changes, and a child
# that is forked meanwhile would wait for it forever.
cdef void lock_calls() noexcept nogil:
    PyThread_acquire_lock(lock, WAIT_LOCK)


cdef void unlock_calls() noexcept nogil:
    PyThread_release_lock(lock)


cdef void forget_calls(frnn_watcher *self) noexcept nogil:
    """In the child of a fork: the threads that were in calls are gone."""
    global inside
    if inside:
        inside = 0
        set_threads(threads_before)


def hold_threads(uintptr_t get, uintptr_t set):
    """Keep BLAS on one thread while calls are under way.

    Its functions that get and set the number, int () and void (int), are at these addresses.
    """
    global get_threads, set_threads
    get_threads = <int (*)() noexcept nogil>get
    set_threads = <void (*)(int) noexcept nogil>set
    f32.begin = f64.begin = begin
    f32.end = f64.end = end
    if watcher.forked == NULL:
        watcher.forked = forget_calls
        watch_forks(&watcher)
        # OpenBLAS ends its threads before a fork. It is loaded already, so this lock is taken before that.
        lock_over_forks(lock_calls, unlock_calls)


cdef uint64_t enter() noexcept nogil:
    return 0


cdef void leave(uint64_t before) noexcept nogil:
    pass


cdef size_t project_bytes(const frnn_cell *cell, Py_ssize_t n) noexcept nogil:
    return 0


cdef size_t step_bytes(const frnn_cell *cell, Py_ssize_t n) noexcept nogil:
    return scratch_size(cell, n) * frnn_arithmetic_bytes(cell.arithmetic)


cdef size_t dense_bytes(const frnn_matrix *matrix, Py_ssize_t n) noexcept nogil:
    return 0


cdef void fill(frnn_backend *backend, frnn_products *products) noexcept:
    """What the tables of both arithmetics have in common."""
    backend.gate_width = gate_width
    backend.part_units = part_units
    backend.pack_biases = pack_biases
    backend.apart = apart
    backend.enter = enter
    backend.leave = leave
    products.backend = backend
    products.pack = pack
    products.project_bytes = project_bytes
    products.step_bytes = step_bytes
    products.dense_bytes = dense_bytes


cdef frnn_backend f32
cdef frnn_products f32_products
fill(&f32, &f32_products)
f32.arithmetic = FRNN_F32
f32_products.format = frnn_format(FRNN_STORED_F32, 1)
f32_products.rates = frnn_rates(70, 70, 140, 100)
f32_products.project = project_f32
f32_products.step = step_f32
f32_products.dense = dense_f32

cdef frnn_backend f64
cdef frnn_products f64_products
fill(&f64, &f64_products)
f64.arithmetic = FRNN_F64
f64_products.format = frnn_format(FRNN_STORED_F64, 1)
f64_products.rates = frnn_rates(35, 70, 140, 100)
f64_products.project = project_f64
f64_products.step = step_f64
f64_products.dense = dense_f64


cdef object entry(const frnn_products *products):
    """Products with their key."""
    arithmetic = frnn_arithmetic_name(products.backend.arithmetic).decode()
    storage = frnn_storage_name(products.format.storage).decode()
    return (arithmetic, storage), PyCapsule_New(<void *>products, "fastrnn.products", NULL)


# By (arithmetic, storage).
PRODUCTS = dict((entry(&f32_products), entry(&f64_products)))
