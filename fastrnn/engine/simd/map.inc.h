/* Maps: a chain of operations, tile by tile, so that what is between them stays in the first-level cache. Included for
 * each arithmetic, and for whole numbers with VL 1.
 *
 * A tile is a block of the last two axes, at most FRNN_MAP_TILE elements. An input that lies in memory as a tile does
 * is read where it lies; others are brought to a register first, and converted. */

/* ---------------------------------------------------------------- tiles from arrays and back */

/* Bring a block (rows, columns) of an array together, or to where it belongs. Inner loops go along the nearer of the
 * two distances. */
#define FRNN_BLOCK(S, body)                                                                      \
    if (column == (ptrdiff_t)sizeof(S)) {                                                        \
        for (ptrdiff_t i = 0; i < rows; i++, at += row, tile += columns) {                       \
            FRNN_POINTER(S) *line = (FRNN_POINTER(S) *)at;                                       \
            for (ptrdiff_t j = 0; j < columns; j++)                                              \
                body(tile[j], line[j]);                                                          \
        }                                                                                        \
    } else if (row == (ptrdiff_t)sizeof(S)) {                                                    \
        for (ptrdiff_t j = 0; j < columns; j++, at += column, tile++) {                          \
            FRNN_POINTER(S) *line = (FRNN_POINTER(S) *)at;                                       \
            for (ptrdiff_t i = 0; i < rows; i++)                                                 \
                body(tile[i * columns], line[i]);                                                \
        }                                                                                        \
    } else {                                                                                     \
        for (ptrdiff_t i = 0; i < rows; i++, at += row, tile += columns)                         \
            for (ptrdiff_t j = 0; j < columns; j++)                                              \
                body(tile[j], *(FRNN_POINTER(S) *)(at + j * column));                            \
    }                                                                                            \
    break;

#define FRNN_POINTER(S) const S
#define FRNN_LOAD(t, s) t = (T)(s)
static FRNN_OUTLINE void FN(load_block)(frnn_type type, T *tile, const char *at, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t row,
                           ptrdiff_t column)
{
    if (type == FRNN_TYPE && column == (ptrdiff_t)sizeof(T)) {
        for (ptrdiff_t i = 0; i < rows; i++)
            memcpy(tile + i * columns, at + i * row, (size_t)columns * sizeof(T));
        return;
    }
    switch (type) {
    case FRNN_TYPE_BOOL: FRNN_BLOCK(uint8_t, FRNN_LOAD)
    case FRNN_TYPE_INT32: FRNN_BLOCK(int32_t, FRNN_LOAD)
    case FRNN_TYPE_INT64: FRNN_BLOCK(int64_t, FRNN_LOAD)
    case FRNN_TYPE_FLOAT32: FRNN_BLOCK(float, FRNN_LOAD)
    case FRNN_TYPE_FLOAT64: FRNN_BLOCK(double, FRNN_LOAD)
    }
}
#undef FRNN_LOAD
#undef FRNN_POINTER

#define FRNN_POINTER(S) S
#define FRNN_STORE(t, s) s = (t)
#define FRNN_STORE_BOOL(t, s) s = (t) != 0
static FRNN_OUTLINE void FN(store_block)(frnn_type type, const T *tile, char *at, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t row,
                            ptrdiff_t column)
{
    if (type == FRNN_TYPE && column == (ptrdiff_t)sizeof(T)) {
        for (ptrdiff_t i = 0; i < rows; i++)
            memcpy(at + i * row, tile + i * columns, (size_t)columns * sizeof(T));
        return;
    }
    switch (type) {
    case FRNN_TYPE_BOOL: FRNN_BLOCK(uint8_t, FRNN_STORE_BOOL)
    case FRNN_TYPE_INT32: FRNN_BLOCK(int32_t, FRNN_STORE)
    case FRNN_TYPE_INT64: FRNN_BLOCK(int64_t, FRNN_STORE)
    case FRNN_TYPE_FLOAT32: FRNN_BLOCK(float, FRNN_STORE)
    case FRNN_TYPE_FLOAT64: FRNN_BLOCK(double, FRNN_STORE)
    }
}
#undef FRNN_STORE
#undef FRNN_STORE_BOOL
#undef FRNN_POINTER
#undef FRNN_BLOCK

/* ---------------------------------------------------------------- places */

/* Where the elements of a tile are: side by side, or one vector for all of them where the mask is 0. */
typedef struct FN(place) {
    T *at;
    ptrdiff_t mask;
} FN(place);

typedef struct FN(mapping) {
    FN(place) places[FRNN_MAP_PLACES];
    T *tiles[FRNN_MAP_PLACES];          /* the memory of inputs that are brought together, and of registers */
    T *vectors[FRNN_MAP_PLACES];        /* of inputs that are the same for a whole tile */
    const char *loaded[FRNN_MAP_PLACES]; /* what of an input that repeats itself is there already, */
    ptrdiff_t rows[FRNN_MAP_PLACES], columns[FRNN_MAP_PLACES]; /* and how much of it */
} FN(mapping);

static inline void FN(fill)(T *vector, T value)
{
    for (ptrdiff_t i = 0; i < VL; i++)
        vector[i] = value;
}

/* Give every place its memory. */
static void FN(lay_out)(const frnn_map *map, FN(mapping) *mapping, char *scratch)
{
    const int inputs = map->inputs, first = inputs + map->scalars, outputs = first + map->registers;
    char *tile = scratch + (ptrdiff_t)(map->scalars + inputs) * 64;
    for (int i = 0; i < map->scalars; i++) {
        T *vector = (T *)(scratch + i * 64);
        FN(fill)(vector, (T)map->numbers[i].FRNN_NUMBER);
        mapping->places[inputs + i] = (FN(place)){vector, 0};
    }
    for (int i = 0; i < inputs; i++) {
        mapping->vectors[i] = (T *)(scratch + (map->scalars + i) * 64);
        mapping->tiles[i] = (T *)tile;
        mapping->loaded[i] = NULL;
        tile += map->is_direct[i] ? 0 : FRNN_MAP_TILE * sizeof(T);
    }
    for (int i = first; i < outputs; i++, tile += FRNN_MAP_TILE * sizeof(T))
        mapping->places[i] = (FN(place)){(T *)tile, -1};
}

/* A block of the last two axes. */
typedef struct FN(block) {
    ptrdiff_t rows, columns, row, column; /* its size, and where it begins */
} FN(block);

static inline void FN(bring)(const frnn_map *map, FN(mapping) *mapping, int i, const char *at, FN(block) block)
{
    const frnn_view *view = &map->views[i];
    const ptrdiff_t column = view->strides[map->axes - 1], row = map->axes > 1 ? view->strides[map->axes - 2] : 0;
    at += block.row * row + block.column * column;
    if (map->is_direct[i]) {
        mapping->places[i] = (FN(place)){(T *)at, -1};
    } else if (column == 0 && (row == 0 || block.rows == 1)) {
        T value = 0;
        if (mapping->loaded[i] == at)
            return;
        FN(load_block)(view->type, &value, at, 1, 1, 0, 0);
        FN(fill)(mapping->vectors[i], value);
        mapping->places[i] = (FN(place)){mapping->vectors[i], 0};
        mapping->loaded[i] = at;
    } else {
        /* A row that repeats itself, such as a bias, stays from block to block. */
        const int repeats = row == 0 && block.rows > 1;
        if (repeats && mapping->loaded[i] == at && mapping->columns[i] == block.columns
            && mapping->rows[i] >= block.rows)
            return;
        FN(load_block)(view->type, mapping->tiles[i], at, block.rows, block.columns, row, column);
        mapping->places[i] = (FN(place)){mapping->tiles[i], -1};
        mapping->loaded[i] = repeats ? at : NULL;
        mapping->rows[i] = block.rows;
        mapping->columns[i] = block.columns;
    }
}

#if VL > 1
/* The last elements of a tile, fewer than a vector. */
static FRNN_OUTLINE void FN(apply_rest)(FN(operation) *operation, ptrdiff_t n, T *to, FN(place) a, FN(place) b, FN(place) c,
                           ptrdiff_t full, const frnn_number *p)
{
    T parts[4][VL];
    FN(place) operands[3] = {a, b, c};
    for (int i = 0; i < 3; i++)
        v_store(parts[i], operands[i].mask == 0 ? v_load(operands[i].at) : v_load_some(operands[i].at + full, n));
    operation(VL, parts[3], parts[0], -1, parts[1], -1, parts[2], -1, p);
    v_store_some(to + full, v_load(parts[3]), n);
}
#endif

static inline void FN(apply)(const frnn_instruction *what, const FN(place) *places, ptrdiff_t n)
{
    FN(operation) *operation = FN(operations)[what->operation];
    const FN(place) a = places[what->a], b = places[what->b], c = places[what->c];
    T *to = places[what->to].at;
    const ptrdiff_t full = n & -(ptrdiff_t)VL;
    if (full > 0)
        operation(full, to, a.at, a.mask, b.at, b.mask, c.at, c.mask, what->p);
#if VL > 1
    if (full < n)
        FN(apply_rest)(operation, n - full, to, a, b, c, full, what->p);
#endif
}

static void FN(map_block)(const frnn_map *map, FN(mapping) *mapping, char *const *arrays, FN(block) block)
{
    const int outputs = map->inputs + map->scalars + map->registers;
    for (int i = 0; i < map->inputs; i++)
        FN(bring)(map, mapping, i, arrays[i], block);
    for (int i = 0; i < map->outputs; i++) {
        const frnn_view *view = &map->views[map->inputs + i];
        if (map->is_direct[map->inputs + i]) {
            const ptrdiff_t row = map->axes > 1 ? view->strides[map->axes - 2] : 0;
            char *at = arrays[map->inputs + i] + block.row * row + block.column * view->strides[map->axes - 1];
            mapping->places[outputs + i] = (FN(place)){(T *)at, -1};
        }
    }
    for (int i = 0; i < map->instructions; i++)
        FN(apply)(&map->program[i], mapping->places, block.rows * block.columns);
    for (int i = 0; i < map->outputs; i++) {
        const frnn_view *view = &map->views[map->inputs + i];
        const ptrdiff_t column = view->strides[map->axes - 1], row = map->axes > 1 ? view->strides[map->axes - 2] : 0;
        const FN(place) from = mapping->places[map->results[i]];
        char *at = arrays[map->inputs + i] + block.row * row + block.column * column;
        if (map->is_direct[map->inputs + i])
            continue;
        FN(store_block)(view->type, from.at, at, block.rows, block.columns, row, column);
    }
}

/* All blocks of the last two axes. */
static void FN(map_plane)(const frnn_map *map, FN(mapping) *mapping, char *const *arrays)
{
    const ptrdiff_t rows = map->axes > 1 ? map->sizes[map->axes - 2] : 1, columns = map->sizes[map->axes - 1];
    for (ptrdiff_t row = 0; row < rows; row += map->tile_rows)
        for (ptrdiff_t column = 0; column < columns; column += map->tile_columns) {
            const ptrdiff_t rows_left = rows - row, left = columns - column;
            const FN(block) block = {rows_left < map->tile_rows ? rows_left : map->tile_rows,
                                     left < map->tile_columns ? left : map->tile_columns, row, column};
            FN(map_block)(map, mapping, arrays, block);
        }
}

static void FN(map)(const frnn_map *map, char *const *arrays, char *scratch)
{
    FN(mapping) mapping;
    const int count = map->inputs + map->outputs, outer = map->axes > 2 ? map->axes - 2 : 0;
    char *at[FRNN_MAP_PLACES];
    ptrdiff_t index[FRNN_AXES] = {0};
    for (int axis = 0; axis < map->axes; axis++)
        if (map->sizes[axis] == 0)
            return;
    FN(lay_out)(map, &mapping, scratch);
    for (int i = 0; i < count; i++)
        at[i] = arrays[i];
    for (;;) {
        int axis = outer - 1;
        FN(map_plane)(map, &mapping, at);
        for (; axis >= 0; axis--) {
            const ptrdiff_t back = ++index[axis] == map->sizes[axis] ? map->sizes[axis] : 0;
            for (int i = 0; i < count; i++)
                at[i] += map->views[i].strides[axis] * (1 - back);
            if (back == 0)
                break;
            index[axis] = 0;
        }
        if (axis < 0)
            return;
    }
}
