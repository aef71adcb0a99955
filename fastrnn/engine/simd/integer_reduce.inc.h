/* Reductions of whole numbers, computed in int64. Sums and products wrap. */

static int64_t frnn_reduce_whole_block(frnn_reduction reduction, const int64_t *x, ptrdiff_t n, int64_t total)
{
    uint64_t sum = (uint64_t)total;
    ptrdiff_t k;
    switch (reduction) {
    case FRNN_REDUCE_PROD:
        for (k = 0; k < n; k++)
            sum *= (uint64_t)x[k];
        return (int64_t)sum;
    case FRNN_REDUCE_MAX:
        for (k = 0; k < n; k++)
            total = x[k] > total ? x[k] : total;
        return total;
    case FRNN_REDUCE_MIN:
        for (k = 0; k < n; k++)
            total = x[k] < total ? x[k] : total;
        return total;
    case FRNN_REDUCE_ANY:
        for (k = 0; k < n; k++)
            total |= x[k] != 0;
        return total;
    case FRNN_REDUCE_ALL:
        for (k = 0; k < n; k++)
            total &= x[k] != 0;
        return total;
    default:
        for (k = 0; k < n; k++)
            sum += (uint64_t)x[k];
        return (int64_t)sum;
    }
}

static int64_t frnn_whole_start(frnn_reduction reduction)
{
    switch (reduction) {
    case FRNN_REDUCE_PROD:
    case FRNN_REDUCE_ALL: return 1;
    case FRNN_REDUCE_MAX: return INT64_MIN;
    case FRNN_REDUCE_MIN: return INT64_MAX;
    default: return 0;
    }
}

static int64_t frnn_reduce_whole_one(const frnn_reduce *what, ptrdiff_t n, const char *base, int64_t *tile)
{
    const int is_most = what->reduction == FRNN_REDUCE_ARGMAX, is_position = is_most || what->reduction == FRNN_REDUCE_ARGMIN;
    int64_t total = frnn_whole_start(what->reduction), position = 0, best = 0;
    for (ptrdiff_t k = 0; k < n; k += FRNN_REDUCE_BLOCK) {
        const ptrdiff_t count = n - k < FRNN_REDUCE_BLOCK ? n - k : FRNN_REDUCE_BLOCK;
        FN(fetch)(what, base, k, count, tile);
        if (!is_position)
            total = frnn_reduce_whole_block(what->reduction, tile, count, total);
        for (ptrdiff_t j = 0; is_position && j < count; j++)
            if (k + j == 0 || (is_most ? tile[j] > best : tile[j] < best)) {
                best = tile[j];
                position = k + j;
            }
    }
    return is_position ? position : total;
}

static void FN(reduce)(const frnn_reduce *what, const char *input, char *output, char *scratch)
{
    ptrdiff_t n = 1, index[FRNN_AXES] = {0};
    for (int axis = 0; axis < what->reduced; axis++)
        n *= what->sizes[what->kept + axis];
    for (int axis = 0; axis < what->kept; axis++)
        if (what->sizes[axis] == 0)
            return;
    for (;;) {
        int axis = what->kept - 1;
        const int64_t result = frnn_reduce_whole_one(what, n, input, (int64_t *)scratch);
        FN(store_block)(what->output.type, &result, output, 1, 1, 0, 0);
        for (; axis >= 0; axis--) {
            input += what->input.strides[axis];
            output += what->output.strides[axis];
            if (++index[axis] < what->sizes[axis])
                break;
            index[axis] = 0;
            input -= what->sizes[axis] * what->input.strides[axis];
            output -= what->sizes[axis] * what->output.strides[axis];
        }
        if (axis < 0)
            return;
    }
}
