/* The elements of one output of a reduction, for each arithmetic and for whole numbers. */

/* Bring `count` elements of an output from element k on together, in their order. */
static void FN(fetch)(const frnn_reduce *what, const char *base, ptrdiff_t k, ptrdiff_t count, T *tile)
{
    const ptrdiff_t *sizes = what->sizes + what->kept, *strides = what->input.strides + what->kept;
    const int last = what->reduced - 1;
    ptrdiff_t index[FRNN_AXES];
    for (int axis = last; axis >= 0; axis--) {
        index[axis] = k % sizes[axis];
        k /= sizes[axis];
    }
    while (count > 0) {
        const ptrdiff_t left = sizes[last] - index[last], run = left < count ? left : count;
        const char *at = base;
        int axis = last;
        for (int i = 0; i <= last; i++)
            at += index[i] * strides[i];
        FN(load_block)(what->input.type, tile, at, 1, run, 0, strides[last]);
        tile += run;
        count -= run;
        index[last] += run;
        for (; axis > 0 && index[axis] == sizes[axis]; axis--) {
            index[axis] = 0;
            index[axis - 1]++;
        }
    }
}
