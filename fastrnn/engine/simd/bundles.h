/* Panels and bundles: where the units of a matrix, and of the gates that it gives, lie.
 *
 * A panel is 16 units with all their gates. A bundle is a few panels whose weights lie together and which are
 * computed together. The weights of a bundle are (K, panels, G, 16), cut in segments of K, and a segment in strips
 * of a few columns (products.inc.h). So products read memory from the first byte to the last, or as a few streams.
 * The gates of a bundle are (n, panels, G, 16): those of all rows lie together, so that its units are finished while
 * they are in the cache.
 */
#ifndef FRNN_BUNDLES_H
#define FRNN_BUNDLES_H

#define FRNN_PANEL 16
#define FRNN_DENSE_BUNDLE 4 /* panels of a bundle where there are no gates: a Linear layer, a projection of h */
#define FRNN_DENSE_WIDTH (FRNN_DENSE_BUNDLE * FRNN_PANEL)

typedef struct frnn_bundle {
    ptrdiff_t panel;  /* its first one */
    ptrdiff_t panels;
    ptrdiff_t offset; /* columns of all bundles before: K rows of their weights are offset * K numbers */
    ptrdiff_t width;  /* its columns: panels * G * 16 */
} frnn_bundle;

static inline ptrdiff_t frnn_panels(ptrdiff_t units)
{
    return (units + FRNN_PANEL - 1) / FRNN_PANEL;
}

/* The bundle of this index, where bundles have `most` panels and the last one may have fewer. */
static inline frnn_bundle frnn_bundle_of(ptrdiff_t units, ptrdiff_t gates, ptrdiff_t most, ptrdiff_t index)
{
    frnn_bundle bundle;
    const ptrdiff_t left = frnn_panels(units) - index * most;
    bundle.panel = index * most;
    bundle.panels = left < most ? left : most;
    bundle.offset = bundle.panel * gates * FRNN_PANEL;
    bundle.width = bundle.panels * gates * FRNN_PANEL;
    return bundle;
}

/* The rows of the next tile, of the rows that are left: as few tiles as hold them, of equal height (8 = 4 + 4), of at
 * most `most` rows. */
static inline ptrdiff_t frnn_equal_part(ptrdiff_t left, ptrdiff_t most)
{
    const ptrdiff_t tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

/* This many bytes in whole cache lines. */
static inline size_t frnn_lines(size_t bytes)
{
    return (bytes + FRNN_LINE - 1) / FRNN_LINE * FRNN_LINE;
}

/* The columns of all bundles. */
static ptrdiff_t frnn_gate_width(const frnn_cell *cell)
{
    return frnn_panels(cell->hidden_size) * FRNN_PANEL * cell->gates;
}

#endif
